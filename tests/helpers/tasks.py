"""Inner problems so small that whole unrolls take milliseconds, for the tests of everything that trains them."""

from dataclasses import replace
from functools import cache

import jax
import numpy as np

from common.config import Config, CurriculumConfig, DatasetConfig, EstimatorConfig, OptimizerConfig, TaskConfig
from common.data.dataset import open_dataset
from common.task import make_task
from workers.unroll import Problem

DATASET = DatasetConfig(image_size=8, classes=20, train_images=6, valid_images=5, test_images=4)
TASKS = {
    "conv": TaskConfig(units=(3, 4), strides=(2, 1), classes=3, batch_size=4, inner_steps=12),
    "shallow conv": TaskConfig(units=(3,), strides=(2,), classes=3, batch_size=4, inner_steps=12),
    "mlp": TaskConfig(family="mlp", units=(4,), classes=3, batch_size=4, inner_steps=12),
    "linear": TaskConfig(family="mlp", units=(), classes=3, batch_size=4, inner_steps=12),
    "quadratic": TaskConfig(family="quadratic", options={"dimension": 2}, inner_steps=12),
}

TINY = (  # a preset and overrides: a figure's training in seconds
    "mini",
    "task.family=mlp",
    "task.units=[3]",
    "task.batch_size=4",
    "task.inner_steps=6",
    "curriculum.start=2",
    "curriculum.end=4",
    "dataset.classes=40",
    "dataset.train_images=6",
    "dataset.valid_images=4",
    "dataset.test_images=4",
    "optimizer.hidden=3",
    "evaluation.rate_count=3",
    "evaluation.baselines=['adam']",
    "workers.segment=6",
    "outer.updates=10",
)


def config(task: str = "quadratic", optimizer: str = "sgd", /, **sections) -> Config:
    """A small run; windows of three steps without jitter."""
    return replace(
        Config(
            task=TASKS[task],
            dataset=DATASET,
            optimizer=OptimizerConfig(family=optimizer),
            curriculum=CurriculumConfig(start=3, end=3, jitter=0.0),
            estimator=EstimatorConfig(sigma=0.1),
        ),
        **sections,
    )


@cache
def task(name: str):
    return make_task(config(name), None if name == "quadratic" else open_dataset(DATASET))


def problem(name: str, seed: int = 0) -> Problem:
    data = task(name).sample(np.random.default_rng(seed), "outer_train")
    return Problem(jax.device_put(data), jax.random.key(100 + seed))
