"""Traced functions kept between processes: the same numbers, fewer traces, and files that are not trusted."""

from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from helpers import tasks

from common.config import OptimizerConfig
from common.optimizer import make_family
from workers import trace_cache
from workers.bench.processes import COMPILED, counted
from workers.trace_cache import TraceCache
from workers.unroll import OuterLoss, Unroll, jitted
from workers.worker import make_engine

FAMILY = make_family(OptimizerConfig(hidden=3, momentum_features=False, time_features=False))
STEPS = 5  # two segments


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Of a cache that a first process has filled."""
    folder = tmp_path_factory.mktemp("traces")
    gradient(TraceCache(folder, "run"))
    return folder


def gradient(compiled, family=FAMILY):
    unroll, problem = Unroll(tasks.task("mlp"), family, OuterLoss(), 3, compiled), tasks.problem("mlp")
    state = unroll.start(problem, jax.random.key(0))
    theta = family.init(jax.random.key(1))
    return jax.tree.map(np.asarray, unroll.losses_and_grad(theta, problem, state, STEPS))


def started(compiled, family=FAMILY):
    return Unroll(tasks.task("mlp"), family, OuterLoss(), 3, compiled).start(tasks.problem("mlp"), jax.random.key(0))


def without_tracing(monkeypatch):
    """Makes tracing a step fail."""

    def traced(*arguments):
        raise AssertionError("traced")

    monkeypatch.setattr("workers.inner_step.InnerStep.on_batch", traced)


def test_kept_functions_give_the_same_bits_untraced(folder, monkeypatch):
    direct = gradient(jitted)
    assert np.any(direct[1])
    without_tracing(monkeypatch)
    kept = gradient(TraceCache(folder, "run"))
    jax.tree.map(np.testing.assert_array_equal, kept, direct)
    with pytest.raises(AssertionError, match="traced"):
        gradient(TraceCache(folder, "another run"))


def test_kept_functions_are_compiled_once(folder):
    unroll, problem = Unroll(tasks.task("mlp"), FAMILY, OuterLoss(), 3, TraceCache(folder, "run")), tasks.problem("mlp")
    for call in unroll.compilations(FAMILY.size, problem, jax.random.key(0)).values():
        call()
    state = unroll.start(problem, jax.random.key(0))
    unroll.losses_and_grad(FAMILY.init(jax.random.key(1)), problem, state, STEPS)
    with counted(COMPILED) as events:
        theta = FAMILY.init(jax.random.key(1))
        before = len(events)
        for _ in range(2):
            _, _, state = unroll.losses_and_grad(theta, problem, state, STEPS)
    assert len(events) == before


def test_corrupt_file_is_replaced(folder, monkeypatch):
    names = sorted(folder.iterdir())
    for path in names:
        path.write_bytes(path.read_bytes()[:-1])
    gradient(TraceCache(folder, "run"))
    assert sorted(folder.iterdir()) == names
    without_tracing(monkeypatch)
    gradient(TraceCache(folder, "run"))


def test_folder_that_cannot_be_written_keeps_nothing(tmp_path):
    (tmp_path / "file").write_text("")
    found = started(TraceCache(tmp_path / "file" / "folder", "run"))
    jax.tree.map(np.testing.assert_array_equal, found, started(jitted))


def test_results_of_foreign_types_are_compiled_as_usual(tmp_path):
    adam = make_family(OptimizerConfig(family="adam"))
    found = started(TraceCache(tmp_path / "traces", "run"), adam)
    jax.tree.map(np.testing.assert_array_equal, found, started(jitted, adam))
    assert not (tmp_path / "traces").exists()


def test_identity_depends_on_configuration_code_and_data(monkeypatch):
    config = tasks.config("mlp", "mlp")
    others = [
        (replace(config, task=replace(config.task, batch_size=5)), "data"),
        (replace(config, workers=replace(config.workers, segment=7)), "data"),
        (config, "other data"),
    ]
    found = {trace_cache.of_run(*arguments)._identity for arguments in [(config, "data"), *others]}
    assert len(found) == 4 and trace_cache.of_run(config, "data")._identity in found
    monkeypatch.setattr(trace_cache, "sources", lambda: "changed")
    assert trace_cache.of_run(config, "data")._identity not in found


def test_sources_are_all_code_that_is_traced(monkeypatch):
    found = []
    monkeypatch.setattr(Path, "read_bytes", lambda path: found.append(path.name) or b"")
    trace_cache.sources.__wrapped__()
    assert {"segment.py", "mlp.py", "conv.py", "task.py"} <= set(found)


def test_tasks_of_the_user_are_never_kept():
    config = tasks.config("quadratic")
    own = replace(config, task=replace(config.task, family="mine:task", options={}))
    assert trace_cache.of_run(own, "") is None


def test_engine_keeps_traces_where_it_is_asked_to(tmp_path, monkeypatch):
    monkeypatch.setenv("OUTERTRAIN_CACHE", str(tmp_path))
    for asked in (False, True):
        engine = make_engine(tasks.config("quadratic", "mlp"), keep_traces=asked)
        engine.unrolls[0].start.eval_shape(tasks.problem("quadratic"), jax.random.key(0))
        assert (tmp_path / "traces").exists() == asked
