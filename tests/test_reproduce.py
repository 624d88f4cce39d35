"""Figures as jobs: computed stage by stage, resumed after an interruption. The figures are toys."""

import json
import sys
import types
from dataclasses import dataclass

import pytest
from matplotlib.figure import Figure

from cluster.cli.interrupt import Interrupted
from cluster.jobs import figures
from cluster.jobs.figures import Setting
from cluster.jobs.job import InProcessPool
from common.errors import UserError
from workers.figures import catalogue
from workers.figures.figure import Job, Kind, Outcome


def toy(name, needs=(), offset=0):
    """Two stages: three numbers, then their sum with what the needed figure has."""

    @dataclass(frozen=True, kw_only=True)
    class NumberJob(Job, figure=name, kind="number"):
        value: int

    @dataclass(frozen=True, kw_only=True)
    class Number(NumberJob):
        pass

    def jobs(scale, results):
        first = [NumberJob(name=f"{name}-{k}", label="", value=k + offset) for k in range(3)]
        if sum(result.figure == name for result in results) < 3:
            return first
        total = sum(result.value for result in results if not result.name.endswith("sum"))
        return [*first, NumberJob(name=f"{name}-{total}-sum", label="", value=total)]

    module = types.ModuleType(f"workers.figures.{name}")
    module.CLAIM, module.NEEDS, module.KINDS = f"{name} is right", needs, (Kind(NumberJob, Number),)
    module.jobs, module.perform = jobs, lambda job, train: Number.of(job)
    module.outcome = lambda results: Outcome(True, f"{sum(result.value for result in results)} in all.")
    pictures = types.ModuleType(f"workers.figures.pictures.{name}")
    pictures.draw = lambda results: Figure()
    return module, pictures


@pytest.fixture
def toys(monkeypatch):
    monkeypatch.setattr(catalogue, "NAMES", ("figA", "figB"))
    for module in (*toy("figA"), *toy("figB", needs=("figA",), offset=10)):
        monkeypatch.setitem(sys.modules, module.__name__, module)


def run(names, folder, computed=None, stop_after=None):
    def perform(item):
        if computed is not None:
            computed.append(item["item"])
        return catalogue.perform(item, None)

    def progress(name, done, total):
        if computed is not None and len(computed) == stop_after:
            raise Interrupted

    figures.reproduce(names, Setting("mini", folder), InProcessPool(perform), progress)


def test_reproduce_computes_a_figure_and_what_it_needs(toys, tmp_path):
    run(["figB"], tmp_path)
    record = json.loads((tmp_path / "figB.json").read_text())
    assert record == {"figure": "figB", "claim": "figB is right", "holds": True, "sentence": "75 in all."}
    assert (tmp_path / "figA.png").exists() and (tmp_path / "figB.png").exists()


def test_reproduce_interrupted_resumes_to_the_same_data(toys, tmp_path):
    whole, first, second = [], [], []
    run(["figB"], tmp_path / "whole", whole)
    with pytest.raises(Interrupted):
        run(["figB"], tmp_path / "cut", first, stop_after=5)
    run(["figB"], tmp_path / "cut", second)
    assert first + second == whole and len(whole) == 8
    for name in ("figA.jsonl", "figB.jsonl", "figB.json"):
        assert (tmp_path / "cut" / name).read_text() == (tmp_path / "whole" / name).read_text()


def test_reproduce_ignores_results_of_other_settings(toys, tmp_path):
    stray = json.dumps({"item": "figA-other", "figure": "figA", "value": 1000}) + "\n"
    (tmp_path / "figA.jsonl").write_text(stray)
    run(["figA"], tmp_path)
    assert json.loads((tmp_path / "figA.json").read_text())["sentence"] == "6 in all."
    assert (tmp_path / "figA.jsonl").read_text().startswith(stray)


def test_so_far_concludes_the_results_there_are(toys, tmp_path):
    sys.modules["workers.figures.figA"].FROM_PARTS = True
    with pytest.raises(Interrupted):
        run(["figA"], tmp_path, [], stop_after=2)
    assert figures.conclude_so_far(["figA"], Setting("mini", tmp_path)) == {"figA": (2, 3)}
    assert json.loads((tmp_path / "figA.json").read_text())["sentence"] == "1 in all."
    assert (tmp_path / "figA.png").exists()
    run(["figA"], tmp_path)
    assert json.loads((tmp_path / "figA.json").read_text())["sentence"] == "6 in all."


def test_so_far_of_a_figure_without_results_is_refused(toys, tmp_path):
    with pytest.raises(UserError, match=r"figA has no result in .* yet: compute some without --so-far"):
        figures.conclude_so_far(["figB"], Setting("mini", tmp_path))
    assert not list(tmp_path.iterdir())


def test_so_far_of_a_figure_that_needs_all_is_refused(toys, tmp_path):
    with pytest.raises(Interrupted):
        run(["figA"], tmp_path, [], stop_after=2)
    with pytest.raises(
        UserError, match="figA concludes from all of its results, and has 2 of 3: compute without --so-far"
    ):
        figures.conclude_so_far(["figA"], Setting("mini", tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["figA.jsonl"]
