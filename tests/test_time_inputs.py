"""Time inputs that see how much of a training is done: what they see, for each length, and in exported optimizers."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import tasks

from cluster.report.export import module_source
from cluster.report.torch_export import torch_source
from cluster.runs.learned import describe_start
from common.config import CurriculumConfig, EstimatorConfig, OptimizerConfig
from common.errors import UserError
from common.optimizer import make_family, usable
from common.optimizer.tensor_rule import PROGRESS, Rule, per_tensor
from common.pretrained import Pretrained
from workers.evaluation.evaluator import Evaluator
from workers.evaluation.jobs import UnrollJob, encode
from workers.trajectory import Sampler
from workers.unroll import OuterLoss, Unroll

PARAMS = {"w": jnp.ones((2, 3))}
SEEING = OptimizerConfig(family="mlp_muon", layers=(4,), progress=True)


def seen(total_steps: int | None, steps: int) -> list[float]:
    """The times that a rule sees."""
    times: list[float] = []

    def update(g, w, averages, step):
        times.append(float(step))
        return g, averages

    tx = per_tensor(Rule(lambda zeros: zeros, update, 1e6), total_steps)
    state = tx.init(PARAMS)
    for _ in range(steps):
        _, state = tx.update(PARAMS, state, PARAMS)
    return times


def test_time_is_the_fraction_that_is_done_in_thousandths() -> None:
    assert seen(None, 3) == [0, 1, 2]
    assert seen(4, 3) == [0, 250, 500]
    assert seen(int(PROGRESS), 3) == [0, 1, 2]


def made(config: OptimizerConfig, total_steps: int | None) -> np.ndarray:
    theta = make_family(config).init(jax.random.key(0))
    tx, params = usable(config, theta, total_steps), PARAMS
    state = tx.init(params)
    for k in range(4):
        updates, state = tx.update({"w": jnp.cos(jnp.arange(6.0).reshape(2, 3) + k)}, state, params)
    return np.asarray(updates["w"])


@pytest.mark.heavy
@pytest.mark.parametrize("family", ["mlp_muon", "mlp_lopt", "adafactor_mlp"])
def test_progress_of_a_thousand_steps_is_the_step(family: str) -> None:
    config = OptimizerConfig(family=family, layers=(4,))
    plain, seeing = made(config, None), dataclasses.replace(config, progress=True)
    np.testing.assert_allclose(made(seeing, 1000), plain, rtol=1e-5)
    assert np.abs(made(seeing, 10) - plain).max() > 1e-6


@pytest.mark.heavy
def test_trajectories_see_their_own_length_and_compile_once() -> None:
    task = dataclasses.replace(tasks.TASKS["quadratic"], inner_steps=(3, 60))
    curriculum = CurriculumConfig(start=3, end=3, jitter=0.0)
    config = tasks.config(task=task, optimizer=SEEING, curriculum=curriculum, estimator=EstimatorConfig(sigma=0.1))
    family = make_family(SEEING)
    unroll = Unroll(tasks.task("quadratic"), family, OuterLoss(), 3)
    draw, theta = Sampler(config, unroll.task, unroll, "w0", family.size), np.asarray(family.init(jax.random.key(0)))
    starts = [draw.begin(0, number) for number in range(1, 6)]
    assert [int(start.plus.optimizer.total) for start in starts] == [start.length for start in starts]
    assert len({start.length for start in starts}) > 2
    for sequence, start in enumerate(starts):
        advance, after = draw.advance(start, theta, 0, sequence, with_rp=True)
        assert np.isfinite(advance.pair.rp).all()
        assert after.number > start.number or int(after.plus.optimizer.total) == start.length
    assert unroll._on_tape._cache_size() == unroll._reverse._cache_size() == 1


@pytest.mark.heavy
def test_evaluation_sees_the_longest_training() -> None:
    task = dataclasses.replace(tasks.TASKS["quadratic"], inner_steps=(3, 40))
    evaluator = Evaluator(tasks.config(task=task, optimizer=SEEING))
    theta = encode(np.asarray(make_family(SEEING).init(jax.random.key(0))))
    assert int(evaluator.start(UnrollJob("learned", 1000, theta=theta))[1].optimizer.total) == 40
    assert np.isfinite(evaluator.run(UnrollJob("learned", 1000, theta=theta)).means.train)


def test_optimizer_that_sees_progress_needs_its_total_steps() -> None:
    theta = make_family(SEEING).init(jax.random.key(0))
    with pytest.raises(UserError, match="give total_steps"):
        usable(SEEING, theta)
    with pytest.raises(UserError, match="leave out total_steps"):
        usable(dataclasses.replace(SEEING, progress=False), theta, 100)


@pytest.mark.parametrize("steps", [0, -1, np.int64(0), 0.5])
def test_training_without_steps_is_rejected(steps: int) -> None:
    """It has no fraction that is done: times would not be finite."""
    with pytest.raises(ValueError, match=f"total_steps = {steps}: a training has at least one step"):
        usable(SEEING, make_family(SEEING).init(jax.random.key(0)), steps)


@pytest.mark.heavy
def test_exported_module_takes_total_steps(tmp_path: Path) -> None:
    theta = np.asarray(make_family(SEEING).init(jax.random.key(0)))
    source = module_source(SEEING, theta, "a test", "mine")
    module: dict[str, object] = {"__name__": "mine"}
    exec(compile(source, "mine.py", "exec"), module)
    tx = module["optimizer"](total_steps=10)  # type: ignore[operator]
    state = tx.init(PARAMS)
    for k in range(4):
        updates, state = tx.update({"w": jnp.cos(jnp.arange(6.0).reshape(2, 3) + k)}, state, PARAMS)
    np.testing.assert_allclose(updates["w"], made(SEEING, 10), rtol=1e-5)
    with pytest.raises(ValueError, match="total_steps = 0"):
        module["optimizer"](total_steps=0)  # type: ignore[operator]
    assert "optimizer(total_steps=100)" in source
    with pytest.raises(UserError, match="cannot be exported for torch"):
        torch_source(SEEING, theta, "a test")


def test_start_at_a_theta_of_other_time_inputs_is_said() -> None:
    learned = Pretrained(np.zeros(3, np.float32), SEEING, "a test")
    assert describe_start(learned, "it", SEEING) == "at theta of it (a test)"
    text = describe_start(learned, "it", dataclasses.replace(SEEING, progress=False))
    assert text == "at theta of it (a test), whose time inputs saw progress and now see steps"


@pytest.mark.parametrize("family", ["mlp", "celo2", "adam"])
def test_progress_of_a_family_without_it_is_rejected(family: str) -> None:
    with pytest.raises(UserError, match=r"optimizer\.progress is for mlp_lopt, adafactor_mlp, mlp_muon"):
        OptimizerConfig(family=family, progress=True)
