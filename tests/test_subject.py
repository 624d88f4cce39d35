"""What `evaluate` works on: which optimizers the workers of a launched run can compare."""

import re
from pathlib import Path

import numpy as np
import pytest

from cluster.cli.main import main
from cluster.cli.options import Place
from cluster.cli.subject import Request, Subject, find_all
from cluster.runs import directory
from cluster.runs.directory import EVALUATION, exclusive
from common import checkpoint, configfile, pretrained
from common.config import OptimizerConfig
from common.errors import UserError
from common.optimizer import make_family
from learner import checkpoints
from learner.lineage import Position, claim

CLUSTER = Place(in_process=False, cluster=True)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With a run `a` of Adam's rate, at version 0."""
    monkeypatch.setenv("OUTERTRAIN_RUNS", str(tmp_path / "runs"))
    monkeypatch.chdir(tmp_path)
    text = '[task]\nfamily = "quadratic"\n[optimizer]\nfamily = "adam"\n[evaluation]\ntasks = 2\n'
    Path("small.toml").write_text(text)
    run = directory.create("a", configfile.load("small.toml"))
    claim(run.epochs, None, 0.0)
    run.checkpoints.mkdir(exist_ok=True)
    checkpoint.save(checkpoints.path_of(run.checkpoints, Position(1, 0)), {"theta": np.full(1, -3.0, np.float32)})
    return tmp_path


@pytest.mark.parametrize("targets", [["a", "small-conv-train"], ["small-conv-train", "a"]])
def test_several_on_a_cluster_are_computed_by_the_run(targets: list[str]) -> None:
    """Its workers know its [optimizer]; the jobs of others name theirs."""
    subject = find_all(targets, Request(targets[0], ("evaluation.tasks=1",), CLUSTER))
    assert (subject.computed_by, subject.run.name) == ("a", "comparison-on-a")
    assert (subject.config.optimizer.family, subject.config.evaluation.tasks) == ("adam", 1)
    assert [one.name for one in subject.contenders] == targets
    elsewhere = find_all(targets, Request(targets[0], (), Place(False, False)))
    assert elsewhere.computed_by is None and elsewhere.config.optimizer == elsewhere.contenders[0].optimizer


@pytest.fixture
def celo2() -> None:
    """With a theta `b.theta` of the default rate."""
    optimizer = OptimizerConfig(family="celo2")
    theta = np.zeros(make_family(optimizer).size, np.float32)
    pretrained.save(Path("b.theta"), pretrained.Pretrained(theta, optimizer, "a test"))


@pytest.mark.usefixtures("celo2")
def test_results_of_another_rate_have_a_folder_of_their_own() -> None:
    """The theta of celo2 does not hold its rate, and the names of results are those of thetas."""

    def folder_of(rate: float) -> str:
        asked = ("optimizer.family=celo2", f"optimizer.learning_rate={rate}")
        return find_all(["b.theta"], Request("b.theta", asked, Place(True, False), tasks="small.toml")).run.name

    directory.create("7", configfile.load("small.toml", ["optimizer.family=celo2", "optimizer.learning_rate=0.01"]))
    first, second = "b-on-small", "b-on-small-2"
    assert [folder_of(rate) for rate in (0.01, 0.01, 0.003, 0.01, 0.003)] == [first, first, second, first, second]


@pytest.mark.usefixtures("celo2")
@pytest.mark.parametrize(
    "targets", [["b.theta"], ["b.theta", "small-conv-train"], ["small-conv-train", "a", "b.theta"]]
)
@pytest.mark.parametrize("also", [(), ("optimizer.family=celo2",)])
def test_rate_that_is_asked_for_is_that_of_celo2(targets: list[str], also: tuple[str, ...]) -> None:
    """In a folder of its own: the names of the results of a theta do not say its rate."""

    def found(*overrides: str) -> Subject:
        return find_all(targets, Request(targets[0], overrides, Place(True, False), tasks="small.toml"))

    before, subject = found(), found(*also, "optimizer.learning_rate=0.01")
    optimizers = [one.optimizer for one in subject.contenders] or [subject.config.optimizer]
    rates = {one.family: one.learning_rate for one in optimizers}
    assert rates == {one.family: 0.01 if one.family == "celo2" else 0.001 for one in optimizers} and "celo2" in rates
    assert subject.config.optimizer == optimizers[0] and subject.run.name != before.run.name


@pytest.mark.usefixtures("celo2")
@pytest.mark.parametrize(
    "targets, override",
    [
        (["small-conv-train"], "optimizer.hidden=64"),
        (["small-conv-train"], "optimizer.learning_rate=0.01"),
        (["b.theta", "small-conv-train"], "optimizer={hidden = 64}"),
        (["b.theta"], "optimizer.momentum=0.5"),
        (["a", "--config", "small.toml"], "optimizer.learning_rate=0.01"),
    ],
)
def test_override_that_theta_decides_is_rejected(
    targets: list[str], override: str, capsys: pytest.CaptureFixture
) -> None:
    assert main(["evaluate", *targets, "--set", override, "--in-process"]) == 2
    assert re.search(r"--set optimizer\.\w+ has no effect on \S+.*: theta decides all of", capsys.readouterr().err)
    assert directory.names() == ["a"]


@pytest.mark.parametrize(
    "targets, sentence",
    [
        (["small-conv-train"], "--cluster computes with the workers of a launched run, and small-conv-train is none"),
        (["small-conv-train", "small-conv-valid"], "none of these is a run: add one, or leave --cluster out"),
        (["a", "small-conv-train", "--config", "small.toml"], "workers of a know the tasks of its own configuration"),
        (["a", "--config", "small.toml"], "workers of a know the tasks of its own configuration only: leave out"),
        (["a", "small-conv-train", "--set", "task.batch_size=3"], r"\[task\] of a run cannot change"),
    ],
)
def test_cluster_says_what_it_cannot_compare(targets: list[str], sentence: str, capsys: pytest.CaptureFixture) -> None:
    assert main(["evaluate", *targets, "--cluster"]) == 2
    assert re.search(sentence, capsys.readouterr().err)
    assert directory.names() == ["a"]


def test_run_with_config_is_evaluated_on_its_tasks() -> None:
    Path("other.toml").write_text('[task]\nfamily = "quadratic"\ninner_steps = 700\n[evaluation]\ntasks = 2\n')
    subject = find_all(["a"], Request("a", (), Place(in_process=True, cluster=False), "other.toml"))
    assert (subject.run.name, subject.version, subject.theta) == ("a-on-other", 0, np.full(1, -3.0, np.float32))
    assert (subject.config.task.inner_steps, subject.config.optimizer.family) == (700, "adam")


@pytest.mark.parametrize("command", [["evaluate", "a", "--config"], ["baselines"], ["search", "--draws", "1"]])
@pytest.mark.parametrize("change", ["evaluation.tasks=0", "evaluation.rate_count=5"])
def test_rejected_command_leaves_a_folder_of_results_as_it_is(
    command: list[str], change: str, capsys: pytest.CaptureFixture
) -> None:
    """While another process computes there, or where there is nothing to compute."""
    run = directory.create("a-on-small" if "a" in command else "small-baselines", configfile.load("small.toml"))
    before = run.config_file.read_bytes()
    with exclusive(run, EVALUATION):
        assert main([*command, "small.toml", "--set", change, "--in-process"]) == 2
    assert re.search("is in use by another process|leaves nothing to do", capsys.readouterr().err)
    assert run.config_file.read_bytes() == before
    assert directory.names() == ["a", run.name]


@pytest.mark.parametrize("command", [["evaluate", "a", "--config"], ["evaluate", "a", "a", "--config"], ["baselines"]])
def test_evaluation_without_tasks_creates_no_folder(command: list[str], capsys: pytest.CaptureFixture) -> None:
    assert main([*command, "small.toml", "--tasks", "0", "--in-process"]) == 2
    assert "leaves nothing to do: give --tasks" in capsys.readouterr().err
    assert directory.names() == ["a"]


def test_folder_of_results_that_cannot_be_read_is_named() -> None:
    broken = directory.create("a-on-small", configfile.load("small.toml"))
    broken.config_file.write_text("[task\n")
    with pytest.raises(UserError, match=r"a-on-small/config\.toml is not valid TOML"):
        find_all(["a"], Request("a", (), Place(in_process=True, cluster=False), "small.toml"))
    assert broken.config_file.read_text() == "[task\n" and directory.names() == ["a", "a-on-small"]


def test_apply_writes_the_configuration_of_results_only() -> None:
    place = Place(in_process=True, cluster=False)
    for tasks, asked in (("small.toml", 3), (None, 4), ("small.toml", 5)):
        subject = find_all(["a"], Request("a", (f"evaluation.tasks={asked}",), place, tasks))
        subject.apply()
        assert subject.run.config().evaluation.tasks == (2 if tasks is None else asked)


def test_target_that_is_nothing_is_named() -> None:
    with pytest.raises(UserError, match="'missing' is not a run, an exported theta file or an included one"):
        find_all(["a", "missing"], Request("a", (), CLUSTER))
