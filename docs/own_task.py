"""Example of a custom task family: small networks that fit sine waves. own_task.toml is its configuration.

The configuration of a run names `own_task:family`. The function `family` is called with that configuration and returns
the four functions of a `TaskFamily`. `sample` uses NumPy and runs once per task; the others are JAX and are compiled.
"""

import jax
import jax.numpy as jnp
import numpy as np

from common.config import Config
from common.task import TaskFamily


def family(config: Config) -> TaskFamily:
    units = config.task.options.get("units", 16)

    def sample(random: np.random.Generator, outer_split: str) -> dict[str, np.ndarray]:
        # The optimizer is evaluated on frequencies that it was not trained on.
        low, high = {"outer_train": (0.5, 1.5), "outer_test": (1.5, 2.0)}[outer_split]
        return {"frequency": np.float32(random.uniform(low, high)), "phase": np.float32(random.uniform(0, np.pi))}

    def init(key: jax.Array) -> dict[str, jax.Array]:
        first, second = jax.random.normal(key, (2, units))
        return {"in": first, "bias": jnp.zeros(units), "out": second / units**0.5}

    def batch(data: dict, key: jax.Array, split: str) -> tuple[jax.Array, jax.Array]:
        # Every batch is drawn afresh, so the three splits need no separate data.
        x = jax.random.uniform(key, (config.task.batch_size, 1), minval=-2.0, maxval=2.0)
        return x, jnp.sin(data["frequency"] * np.pi * x + data["phase"])

    def loss(w: dict[str, jax.Array], batch: tuple[jax.Array, jax.Array]) -> jax.Array:
        # Never negative: losses are clamped from above only (estimator.clamp).
        x, y = batch
        hidden = jnp.tanh(x * w["in"][None] + w["bias"][None])
        return jnp.mean((hidden @ w["out"] - y[:, 0]) ** 2)

    return TaskFamily(sample, init, batch, loss)
