"""Runs in one process: the same seed gives the same theta, bit for bit, however often the run was killed."""

import contextlib
import errno
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.in_process import compile_once, train

from cluster.cli import console
from cluster.cli.interrupt import Interrupt
from cluster.cli.main import main
from cluster.cli.train import follow
from cluster.jobs import candidates
from cluster.jobs.evaluation import FILE, InterimEvaluation
from cluster.launchers.in_process import InProcessRun, open_training, train_for_figure
from cluster.monitoring.status import status_of, text
from cluster.runs import best, directory
from cluster.runs.directory import load_theta
from common import jsonlines, pretrained
from common.config import Config
from common.configfile import from_dict
from learner import checkpoints
from learner.history import read_history
from workers.worker import make_engine

UPDATES = 12
TREE = {
    "task": {"family": "quadratic", "inner_steps": 9, "options": {"dimension": 2}},
    "optimizer": {"family": "sgd", "learning_rate": 0.05},
    "estimator": {"pairs": 2},
    "curriculum": {"start": 2, "end": 4, "updates": 6},
    "outer": {"updates": UPDATES, "batch_samples": 4, "learning_rate": 0.01},
    "workers": {"count": 3},
}


@pytest.fixture(autouse=True)
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTERTRAIN_RUNS", str(tmp_path / "runs"))
    compile_once(monkeypatch)


def config(**sections: dict) -> Config:
    return from_dict({name: {**TREE.get(name, {}), **sections.get(name, {})} for name in {*TREE, *sections}})


@pytest.mark.heavy
def test_run_theta_depends_on_the_seed_only() -> None:
    first, second, other = (
        load_theta(train(name, from_dict({**TREE, "seed": seed})))[0] for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    assert first.tobytes() == second.tobytes() != other.tobytes()


@pytest.mark.parametrize(
    "samples, estimator",
    [
        ((0, 1, 3, 5, 4), {}),
        pytest.param((5,), {"es": "persistent", "use": "es"}, marks=pytest.mark.heavy),
        pytest.param((5,), {"es": "persistent", "reach": 1}, marks=pytest.mark.heavy),
        pytest.param((6,), {"es": "noise_reuse", "use": "es"}, marks=pytest.mark.heavy),
    ],
)
def test_run_killed_anywhere_and_resumed_is_the_same(samples: tuple[int, ...], estimator: dict[str, Any]) -> None:
    """`samples`: between two kills; a batch has 2 samples of 2 pairs."""
    wanted = config(estimator={"pairs": 2, **estimator})
    uninterrupted = train("uninterrupted", wanted)
    for steps in samples:
        train("killed-often", wanted, steps)
    killed = train("killed-often", wanted)
    assert load_theta(killed)[0].tobytes() == load_theta(uninterrupted)[0].tobytes()
    lines = [[r.version, r.loss, r.norms.gradient] for r in read_history(killed.path)]
    assert lines == [[r.version, r.loss, r.norms.gradient] for r in read_history(uninterrupted.path)]


def test_run_staleness_is_zero_and_workers_take_turns() -> None:
    lines = read_history(train("a", config()).path)
    assert len(lines) == UPDATES
    assert all(line.staleness == (0.0, 0) for line in lines)
    assert {line.workers_seen for line in lines} <= {2, 3, 4}


@pytest.mark.heavy
def test_run_command_killed_by_sigkill_resumes_to_the_same() -> None:
    """The command, killed while it starts, computes or writes, resumes to the same theta, compiled as users compile."""
    wanted = config(outer={**TREE["outer"], "updates": 30})
    uninterrupted, run = (directory.create(name, wanted) for name in ("uninterrupted", "killed"))
    optimized = {name: value for name, value in os.environ.items() if name != "JAX_DISABLE_MOST_OPTIMIZATIONS"}
    command = [sys.executable, "-m", "cluster.cli.main", "train", "--resume", "--in-process", "--no-evaluate", "--name"]
    for version in (0, 17):
        with subprocess.Popen([*command, "killed"], stderr=subprocess.DEVNULL, env=optimized) as process:
            while not any(int(p.stem[-7:]) > version for p in (run.path / "checkpoints").glob("e*.ckpt")):
                with contextlib.suppress(subprocess.TimeoutExpired):
                    pytest.fail(f"ended with code {process.wait(0.01)} before it was killed")
            process.send_signal(signal.SIGKILL)
    for name in ("killed", "uninterrupted"):
        done = subprocess.run([*command, name], stderr=subprocess.PIPE, text=True, env=optimized)
        assert done.returncode == 0, done.stderr
    theta, version = load_theta(run)
    assert version == 30 and theta.tobytes() == load_theta(uninterrupted)[0].tobytes()
    assert np.isfinite(theta).all()


@pytest.mark.heavy
def test_run_evaluated_during_training_is_unchanged() -> None:
    wanted = config(evaluation={"every": 5, "tasks": 2})
    run = directory.create("watched", wanted)
    with InProcessRun(run, wanted) as host:
        interim = InterimEvaluation(run, wanted, host.pool())
        follow(host, wanted, interim, Interrupt(), console.PlainDisplay())
    rows = jsonlines.read(run.evaluation / FILE)
    assert {(row["optimizer"], row["version"], row["task"], row["outer_split"]) for row in rows} == {
        ("learned", version, task, "outer_train") for version in (0, 5, 10) for task in (1000, 1001)
    }
    assert load_theta(run)[0].tobytes() == load_theta(train("plain", config()))[0].tobytes()


def test_full_disk_delays_the_evaluation_and_not_the_training(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    wanted = config(evaluation={"every": 5, "tasks": 1})
    run, failures = directory.create("full", wanted), []
    link = candidates.add

    def add(*arguments: Any) -> Path | None:
        failures.append(1)
        if len(failures) < 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        return link(*arguments)

    monkeypatch.setattr(candidates, "add", add)
    with InProcessRun(run, wanted) as host:
        follow(host, wanted, InterimEvaluation(run, wanted, host.pool()), Interrupt(), console.PlainDisplay())
    assert load_theta(run)[1] == UPDATES and len(jsonlines.read(run.evaluation / FILE)) >= 1
    assert "the disk is full" in caplog.text and "training continues" in caplog.text


def test_best_evaluated_version_is_kept_and_exported(tmp_path: Path) -> None:
    wanted = config(evaluation={"every": 3, "tasks": 2}, outer={"keep_checkpoints": 2, "learning_rate": 0.5})
    run = directory.create("watched", wanted)
    with InProcessRun(run, wanted) as host:
        interim = InterimEvaluation(run, wanted, host.pool())
        follow(host, wanted, interim, Interrupt(), console.PlainDisplay())
        interim.conclude(None)
        interim.conclude(lambda done, total: None)  # evaluates the newest version too
    losses: dict[int, list[float]] = {}
    for row in jsonlines.read(run.evaluation / FILE):
        losses.setdefault(row["version"], []).append(row["mean_train"])
    losses = {version: known for version, known in losses.items() if len(known) == 2}
    least = min(losses, key=lambda version: np.mean(losses[version]))
    found = best.read(run)
    assert found is not None and (found.version, found.tasks, found.evaluated) == (least, 2, len(losses))
    assert found.loss == pytest.approx(np.mean(losses[least])) and len(losses) >= 4 and UPDATES in losses
    assert [p.version for p in checkpoints.positions(run.evaluated)] == [least]
    assert main(["export", "watched", "--version", "best", "-o", str(tmp_path / "best.theta")]) == 0
    exported = pretrained.load(tmp_path / "best.theta")
    assert exported.origin.endswith(f"outer update {least}")
    assert exported.theta.tobytes() == load_theta(run, least)[0].tobytes()
    assert f"best: version {least}, mean train loss" in text(status_of(run))


def test_workers_of_one_process_share_an_unroll(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its tapes take the most memory of all that a worker has."""
    monkeypatch.setattr("cluster.launchers.in_process.make_engine", make_engine)
    training = open_training(SMALL, tmp_path)
    assert len(training._workers) == 2 and len({id(worker.samplers[0].unroll) for worker in training._workers}) == 1


SMALL_TREE = {
    "task": {"family": "quadratic", "inner_steps": 12},
    "optimizer": {"family": "sgd", "learning_rate": 0.01},
    "curriculum": {"start": 2, "end": 6, "updates": 5},
    "outer": {"updates": 6, "batch_samples": 3},
    "workers": {"count": 2, "segment": 6},
}
SMALL = from_dict(SMALL_TREE)


@pytest.mark.heavy
def test_train_for_figure_twice_gives_the_same(tmp_path: Path) -> None:
    one, other = (train_for_figure(SMALL, [0, 3, 6], folder=tmp_path / name) for name in "ab")
    np.testing.assert_array_equal(one.theta, other.theta)
    assert [line.version for line in one.history] == [1, 2, 3, 4, 5, 6]
    np.testing.assert_array_equal(one.kept[6], one.theta)
    assert one.kept[0].tolist() == pytest.approx([0.01, 0.9])
    assert not np.array_equal(one.kept[3], one.theta)


@pytest.mark.heavy
def test_train_for_figure_resumed_gives_the_same(tmp_path: Path) -> None:
    uninterrupted = train_for_figure(SMALL, [0, 2, 6], folder=tmp_path / "uninterrupted")
    (tmp_path / "cut").mkdir()
    training = open_training(SMALL, tmp_path / "cut")
    np.save(tmp_path / "cut" / "kept-0.npy", training.theta)
    for _ in range(8):  # two updates and two samples of the third
        training.advance()
        if training.version == 2:
            np.save(tmp_path / "cut" / "kept-2.npy", training.theta)
    resumed = train_for_figure(SMALL, [0, 2, 6], folder=tmp_path / "cut")
    np.testing.assert_array_equal(resumed.theta, uninterrupted.theta)
    np.testing.assert_array_equal(resumed.kept[2], uninterrupted.kept[2])
    assert [line.loss for line in resumed.history] == [line.loss for line in uninterrupted.history]


def test_train_for_figure_finished_run_is_not_extended(tmp_path: Path) -> None:
    once = train_for_figure(SMALL, [6], folder=tmp_path)
    again = train_for_figure(SMALL, [6], folder=tmp_path)
    np.testing.assert_array_equal(once.theta, again.theta)
    assert len(again.history) == 6


# Both unrolls of a pair count: a sample of one pair and window w has 2 w inner steps.
BUDGET = from_dict(SMALL_TREE | {"outer": {"updates": 100, "batch_samples": 3, "inner_steps": 120}})


def test_run_ends_with_the_update_that_spends_its_steps(tmp_path: Path) -> None:
    trained = train_for_figure(BUDGET, [0], folder=tmp_path, at_steps=[30, 60, 120])
    steps = np.cumsum([update.inner_steps for update in trained.history])
    assert steps[-2] < 120 <= steps[-1] and len(steps) < 100
    assert [update.inner_steps_total for update in trained.history] == steps.tolist()
    assert [update.inner_steps for update in trained.history] == [
        round(2 * update.windows.mean * update.samples) for update in trained.history
    ]
    np.testing.assert_array_equal(trained.reached[120], trained.theta)
    version = int(np.searchsorted(steps, 60)) + 1
    again = train_for_figure(BUDGET, [version], folder=tmp_path / "again")
    np.testing.assert_array_equal(trained.reached[60], again.kept[version])


def test_run_with_a_budget_resumed_gives_the_same(tmp_path: Path) -> None:
    whole = train_for_figure(BUDGET, [], folder=tmp_path / "whole", at_steps=[60])
    (tmp_path / "cut").mkdir()
    training = open_training(BUDGET, tmp_path / "cut")
    for _ in range(8):
        training.advance()
    parts = train_for_figure(BUDGET, [], folder=tmp_path / "cut", at_steps=[60])
    np.testing.assert_array_equal(parts.theta, whole.theta)
    np.testing.assert_array_equal(parts.reached[60], whole.reached[60])
    assert len(parts.history) == len(whole.history)


STALE = from_dict(SMALL_TREE | {"workers": {"count": 12, "segment": 6}, "outer": {"updates": 20, "batch_samples": 3}})


@pytest.mark.heavy
def test_stale_workers_are_workers_by_batch_behind(tmp_path: Path) -> None:
    trained = train_for_figure(STALE, [], folder=tmp_path, stale=True)
    assert [update.staleness.mean for update in trained.history[:3]] == [0, 1, 2]
    assert {update.staleness.mean for update in trained.history[4:]} == {4 - 1 / 3}  # the last to reply has the newest
    fresh = train_for_figure(STALE, [], folder=tmp_path / "fresh")
    assert {update.staleness.max for update in fresh.history} == {0}
    assert not np.array_equal(fresh.theta, trained.theta)


@pytest.mark.heavy
def test_stale_workers_resumed_give_the_same(tmp_path: Path) -> None:
    uninterrupted = train_for_figure(STALE, [], folder=tmp_path / "uninterrupted", stale=True)
    (tmp_path / "cut").mkdir()
    for samples in (7, 18, 19):
        training = open_training(STALE, tmp_path / "cut", stale=True)
        for _ in range(samples):
            training.advance()
    resumed = train_for_figure(STALE, [], folder=tmp_path / "cut", stale=True)
    assert [line.loss for line in resumed.history] == [line.loss for line in uninterrupted.history]
    np.testing.assert_array_equal(resumed.theta, uninterrupted.theta)


def test_steps_that_a_run_does_not_reach_have_its_last_theta(tmp_path: Path) -> None:
    trained = train_for_figure(SMALL, [], folder=tmp_path, at_steps=[10**9])
    np.testing.assert_array_equal(trained.reached[10**9], trained.theta)
