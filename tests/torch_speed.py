"""Measures the step of the optimizer that is exported for torch, beside the optax module and torch's Adam.

`python tests/torch_speed.py` needs the extra `torch` and an idle machine, and prints the table of docs/exported-optimizers.md in
a minute. A step takes gradients and changes the parameters; that of optax is jitted and donates parameters and state. The
steps of the three optimizers alternate in one process with one thread on one core, so that what slows the machine slows all.
"""

import importlib.util
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import numpy as np
import optax
import torch

from cluster.report.export import write
from common import runtime
from common.config import OptimizerConfig
from common.optimizer import make_family
from common.pretrained import Pretrained

NETWORK = ((1000, 784), (1000,), (216, 1000), (216,))  # weight and bias of two dense layers
SHAPES = {
    "one matrix": ((1000, 1000),),
    "two matrices and two vectors": NETWORK,
    "100 matrices of 100 x 100": ((100, 100),) * 100,
}
STEPS, WARM_UP = 50, 3
BATCH = 128


def modules() -> dict[str, ModuleType]:
    """The modules that are exported for torch and for optax, of the paper's family."""
    found, config = {}, OptimizerConfig(family="mlp")
    theta = np.asarray(make_family(config).init(jax.random.key(0)))
    with tempfile.TemporaryDirectory() as folder:
        for framework in ("torch", "optax"):
            path = Path(folder) / f"speed_of_{framework}.py"
            write(Pretrained(theta, config, "here"), path, framework)
            spec = importlib.util.spec_from_file_location(path.stem, path)
            assert spec is not None and spec.loader is not None
            found[framework] = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(found[framework])
    return found


def torch_step(make: Any, arrays: list[np.ndarray], gradients: list[np.ndarray]) -> Callable[[], None]:
    params = [torch.tensor(x, requires_grad=True) for x in arrays]
    for p, g in zip(params, gradients, strict=True):
        p.grad = torch.tensor(g)
    step: Callable[[], None] = make(params).step
    return step


def optax_step(
    tx: optax.GradientTransformation, arrays: list[np.ndarray], gradients: list[np.ndarray]
) -> Callable[[], None]:
    params, g = (jax.device_put(x) for x in (arrays, gradients))

    def step(carry: Any, g: Any) -> Any:
        updates, state = tx.update(g, carry[1], carry[0])
        return optax.apply_updates(carry[0], updates), state

    compiled, carry = jax.jit(step, donate_argnums=0), (params, tx.init(params))

    def call() -> None:
        nonlocal carry
        carry = jax.block_until_ready(compiled(carry, g))

    return call


def milliseconds(steps: dict[str, Callable[[], None]]) -> dict[str, list[float]]:
    """The times of STEPS calls of each, alternating, in milliseconds."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for k in range(WARM_UP + STEPS):
        for name, step in steps.items():
            before = time.perf_counter()
            step()
            if k >= WARM_UP:
                times[name].append(1e3 * (time.perf_counter() - before))
    return times


def row(found: dict[str, ModuleType], shapes: tuple[tuple[int, ...], ...]) -> dict[str, list[float]]:
    random = np.random.default_rng(0)
    arrays, gradients = ([random.normal(size=shape).astype(np.float32) for shape in shapes] for _ in range(2))
    arrays = [0.05 * x for x in arrays]
    return milliseconds(
        {
            "torch": torch_step(found["torch"].LearnedOptimizer, arrays, gradients),
            "optax": optax_step(found["optax"].optimizer(), arrays, gradients),
            "adam": torch_step(lambda params: torch.optim.Adam(params, foreach=False), arrays, gradients),
        }
    )


def training_step(found: dict[str, ModuleType]) -> dict[str, list[float]]:
    """Gradient and update of the dense network of the second row, each a part of one training step in torch."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(784, 1000), torch.nn.ReLU(), torch.nn.Linear(1000, 216))
    assert tuple(tuple(p.shape) for p in model.parameters()) == NETWORK
    x, y = torch.randn(BATCH, 784), torch.randint(216, (BATCH,))
    optimizer = found["torch"].LearnedOptimizer(model.parameters())

    def gradient() -> None:
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(x), y).backward()

    return milliseconds({"gradient": gradient, "update": optimizer.step})


def cell(times: list[float]) -> str:
    return f"{statistics.median(times):.3g} ({min(times):.3g})"


def main() -> int:
    runtime.prepare()  # one core, and one thread of XLA
    torch.set_num_threads(1)
    found = modules()
    print(f"torch {torch.__version__}, JAX {jax.__version__}: milliseconds, median (minimum) of {STEPS} steps\n")
    print("| A million parameters as | torch | optax | torch / optax | torch.optim.Adam |\n|---|---|---|---|---|")
    for name, shapes in SHAPES.items():
        times = row(found, shapes)
        ratio = statistics.median(times["torch"]) / statistics.median(times["optax"])
        cells = [name, cell(times["torch"]), cell(times["optax"]), f"{ratio:.2f}", cell(times["adam"])]
        print(f"| {' | '.join(cells)} |", flush=True)
    parts = training_step(found)
    update, both = statistics.median(parts["update"]), sum(map(statistics.median, parts.values()))
    print(
        f"\nbatch {BATCH}: gradient {cell(parts['gradient'])}, update {cell(parts['update'])}, {update / both:.0%} of both"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
