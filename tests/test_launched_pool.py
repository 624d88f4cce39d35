"""Figures on a Ray cluster: trainings as launched runs, the rest as Ray tasks; interrupted and resumed."""

import json
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from helpers import ray_environment, run_files  # noqa: F401  before Ray
from helpers.cluster import start_cluster
from helpers.tasks import TINY
from PIL import Image

from cluster.cli.main import main
from cluster.jobs.job import Job
from cluster.launchers import launched_pool, ray_cluster
from cluster.launchers.launched_pool import Finished, launching
from cluster.monitoring.fleet_status import FleetStatus
from cluster.monitoring.run_status import LearnerReport
from cluster.runs import directory
from common.errors import UserError
from learner.history import read_history
from learner.status import LearnerStatus
from workers.figures import fig5

LONGER = (*TINY, "outer.batch_samples=2", "outer.updates=400")


def test_launching_passes_the_settings_or_resumes() -> None:
    training = fig5.TrainingJob(
        label="label", settings=("mini", "seed=3"), objective="train", seed=3, versions_kept=[0]
    )
    one = Job.from_json(training.named().to_json())
    first = launching(one, 5, resume=False)
    assert first[:4] == ["launch", "--name", one.name, "mini"]
    assert {"--set=seed=3", "--set=outer.keep_every=2", "--workers=5"} <= set(first)  # mini has 200 updates
    assert launching(one, None, resume=True) == ["launch", "--name", one.name, "--resume"]


def test_trained_takes_the_last_kept_version_before_each() -> None:
    thetas = {version: np.full(2, version, np.float32) for version in (0, 40, 80, 83)}
    trained = Finished(thetas, run_files.history(3)).trained([0, 41, 80, 83])
    assert {version: int(theta[0]) for version, theta in trained.kept.items()} == {0: 0, 41: 40, 80: 80, 83: 83}
    assert trained.theta[0] == 83 and len(trained.history) == 3


def test_trained_takes_the_last_kept_version_before_steps() -> None:
    history = [update._replace(inner_steps=100) for update in run_files.history(90)]
    thetas = {version: np.full(2, version, np.float32) for version in (0, 40, 80, 90)}
    reached = Finished(thetas, history).trained([0], [50, 4500, 8000, 20_000]).reached
    assert {steps: int(theta[0]) for steps, theta in reached.items()} == {50: 0, 4500: 40, 8000: 80, 20_000: 90}


@pytest.mark.parametrize(
    "learner, fleet, said",
    [
        (LearnerStatus(superseded=True), FleetStatus(target=4, running=4), "another learner has taken over"),
        (LearnerStatus(), FleetStatus(target=4, abandoned=4, last_failure="no class store"), "failed.*no class store"),
    ],
)
def test_training_that_cannot_go_on_is_an_error(
    learner: LearnerStatus, fleet: FleetStatus, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = {"report": LearnerReport(learner, [], ""), "status": fleet}
    actor = SimpleNamespace(**{name: SimpleNamespace(remote=name) for name in answers})
    monkeypatch.setattr(ray_cluster, "handles", lambda run: (actor, actor))
    monkeypatch.setattr(launched_pool, "unwrap", answers.get)
    with pytest.raises(UserError, match=said):
        launched_pool.finished(directory.RunDirectory(tmp_path / "a"))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder, with a cluster of one node with four cores."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OUTERTRAIN_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("RAY_ADDRESS", "")
    monkeypatch.setitem(fig5.SCALES, "mini", fig5.Scale(LONGER, seeds=1, points=3, tasks=2))
    monkeypatch.setattr(fig5, "OBJECTIVES", {"train": ()})
    cluster = start_cluster(1, cores=4)
    yield tmp_path
    cluster.shutdown()


@pytest.mark.cluster
@pytest.mark.filterwarnings("ignore:os.fork")
def test_reproduce_on_a_cluster_interrupted_completes(folder: Path) -> None:
    asked = ["reproduce", "fig5", "--cluster", "--workers", "2", "-o", "figures"]
    ended = threading.Event()
    watcher = threading.Thread(target=interrupt_after_an_update, args=(folder, ended), daemon=True)
    watcher.start()
    code = main(asked)
    ended.set()
    watcher.join()
    assert code == 130
    (run,) = (folder / "runs").iterdir()
    before = read_history(run)
    assert 0 < len(before) < 400
    assert runs_on_the_cluster() == []

    assert main(asked) == 0
    history = read_history(run)
    assert [line.version for line in history] == list(range(1, 401))
    assert history[: len(before)] == before  # the same lineage
    rows = [json.loads(line) for line in (folder / "figures" / "fig5.jsonl").read_text().splitlines()]
    assert sorted(r["kind"] for r in rows) == ["adam", "adam", "evaluation", "evaluation", "evaluation", "train"]
    assert {"holds", "sentence"} <= json.loads((folder / "figures" / "fig5.json").read_text()).keys()
    with Image.open(folder / "figures" / "fig5.png") as picture:
        assert len(picture.convert("RGB").getcolors()) > 20
    assert runs_on_the_cluster() == []


def interrupt_after_an_update(folder: Path, ended: threading.Event) -> None:
    """Ctrl-C after the first outer update, unless the command has ended by itself."""
    while not any(file.stat().st_size > 0 for file in folder.glob("runs/*/history.jsonl")):
        if ended.wait(0.05):
            return
    os.kill(os.getpid(), signal.SIGINT)


def runs_on_the_cluster() -> list[str]:
    with ray_cluster.connected():
        return ray_cluster.runs()
