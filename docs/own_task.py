"""An example of your own inner problems: small networks that fit sine waves. See own_task.toml beside this file.

A run names `own_task:family` in its configuration; `family` is called with that configuration and gives the four
functions of a `TaskFamily`. `sample` is NumPy and runs once per task; the others are JAX and are compiled.
"""

import jax
import jax.numpy as jnp
import numpy as np

from common.config import Config
from common.task import TaskFamily


def family(config: Config) -> TaskFamily:
    units = config.task.options.get("units", 16)

    def sample(random: np.random.Generator, outer_split: str) -> dict[str, np.ndarray]:
        # The optimizer is judged on frequencies that it was not learned on.
        low, high = {"outer_train": (0.5, 1.5), "outer_test": (1.5, 2.0)}[outer_split]
        return {"frequency": np.float32(random.uniform(low, high)), "phase": np.float32(random.uniform(0, np.pi))}

    def init(key: jax.Array) -> dict[str, jax.Array]:
        first, second = jax.random.normal(key, (2, units))
        return {"in": first, "bias": jnp.zeros(units), "out": second / units**0.5}

    def batch(data: dict, key: jax.Array, split: str) -> tuple[jax.Array, jax.Array]:
        # Every batch is fresh, so here the three splits need no data of their own.
        x = jax.random.uniform(key, (config.task.batch_size, 1), minval=-2.0, maxval=2.0)
        return x, jnp.sin(data["frequency"] * np.pi * x + data["phase"])

    def loss(w: dict[str, jax.Array], batch: tuple[jax.Array, jax.Array]) -> jax.Array:
        # 0 or more: a loss is clamped from above only (estimator.clamp).
        x, y = batch
        hidden = jnp.tanh(x * w["in"][None] + w["bias"][None])
        return jnp.mean((hidden @ w["out"] - y[:, 0]) ** 2)

    return TaskFamily(sample, init, batch, loss)
