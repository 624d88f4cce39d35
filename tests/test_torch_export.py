"""The optimizer that is exported for torch: the updates of the optax module, and the habits of torch's optimizers."""

import ast
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cluster.report.export import write
from cluster.report.torch_export import torch_source
from common.config import OptimizerConfig
from common.errors import UserError
from common.optimizer import make_family, usable
from common.pretrained import Pretrained

CONFIGS = {
    "whole": OptimizerConfig(),
    "ablated": OptimizerConfig(hidden=8, momentum_features=False, time_features=False),
    "orthogonal": OptimizerConfig(family="mlp_muon", layers=(8,)),
}
SHAPES = ((), (7,), (3, 5), (2, 3, 4), (2, 3, 4, 5), (3, 5), (0,))


def theta_of(config: OptimizerConfig) -> np.ndarray:
    """A theta whose updates are large enough to change the weights within some steps."""
    return 3 * np.asarray(make_family(config).init(jax.random.key(1)))


def exported(config: OptimizerConfig) -> Any:
    names: dict[str, Any] = {}
    exec(compile(torch_source(config, theta_of(config), "here"), "my_optimizer.py", "exec"), names)
    return names["LearnedOptimizer"]


@pytest.mark.parametrize("name", CONFIGS)
def test_torch_module_passes_linter_and_formatter(tmp_path: Path, name: str) -> None:
    path = tmp_path / "my_optimizer.py"
    write(Pretrained(theta_of(CONFIGS[name]), CONFIGS[name], "here"), path, "torch")
    assert {node.names[0].name for node in ast.parse(path.read_text()).body if isinstance(node, ast.Import)} == {
        *("base64", "functools", "struct", "torch")
    }
    ruff = [sys.executable, "-m", "ruff"]
    subprocess.run([*ruff, "check", "-q", "--isolated", "--line-length=120", "--select=E,F,I,W", path], check=True)
    subprocess.run([*ruff, "format", "-q", "--isolated", "--line-length=120", "--check", path], check=True)


@pytest.mark.parametrize(
    "origin", ['"""\nraise SystemExit("executed")\n#', "@THETA@ @SIZE@ \\", "\u2028 \u202e \ud800 \0"]
)
def test_hostile_origin_stays_a_string_for_torch(origin: str) -> None:
    config = CONFIGS["ablated"]
    hostile, plain = (ast.parse(torch_source(config, theta_of(config), text)).body for text in (origin, "here"))
    [[new, _old]] = [(a, b) for a, b in zip(hostile, plain, strict=True) if ast.dump(a) != ast.dump(b)]
    assert isinstance(new, ast.Assign) and ast.unparse(new.targets[0]) == "ORIGIN"
    assert ast.literal_eval(new.value) == origin


def test_what_torch_has_or_no_module_is_refused(tmp_path: Path) -> None:
    adam = OptimizerConfig(family="adam")
    deep = OptimizerConfig(family="mlp_muon", layers=(4, 4))
    with pytest.raises(UserError, match=r"hidden layers \[4, 4\] cannot be exported for torch"):
        write(Pretrained(theta_of(deep), deep, "here"), tmp_path / "my_optimizer.py", "torch")
    with pytest.raises(UserError, match="adam cannot be exported for torch"):
        write(Pretrained(theta_of(adam), adam, "here"), tmp_path / "my_optimizer.py", "torch")
    with pytest.raises(UserError, match=r"is not a \.py file"):
        write(Pretrained(theta_of(CONFIGS["whole"]), CONFIGS["whole"], "here"), tmp_path / "some.theta", "torch")
    assert not list(tmp_path.iterdir())


@pytest.mark.torch
@pytest.mark.parametrize("name", CONFIGS)
def test_200_steps_equal_those_of_optax_in_float64(name: str) -> None:
    import torch

    config, generator = CONFIGS[name], np.random.default_rng(0)
    start = [generator.normal(size=shape) for shape in SHAPES]
    gradients = [[generator.normal(size=shape) for shape in SHAPES] for _ in range(200)]
    params = [torch.tensor(w) for w in start]
    params[2] = torch.tensor(start[2].T.copy()).T  # not contiguous
    params[4] = params[4].to(memory_format=torch.channels_last)
    optimizer = exported(config)(params, lr=0.5, weight_decay=0.01)
    for row in gradients:
        for k, (p, g) in enumerate(zip(params, row, strict=True)):
            p.grad = torch.tensor(g) if k != 4 else torch.tensor(g).to(memory_format=torch.channels_last)
        optimizer.step()
    with jax.enable_x64(True):
        tx = usable(config, jnp.asarray(theta_of(config)))
        tx = optax.chain(tx, optax.add_decayed_weights(-0.01), optax.scale(0.5))
        w = [jnp.asarray(x) for x in start]
        state, step = tx.init(w), jax.jit(tx.update)
        for row in gradients:
            updates, state = step([jnp.asarray(g) for g in row], state, w)
            w = [a + b for a, b in zip(w, updates, strict=True)]
    for p, x, first in zip(params, w, start, strict=True):
        np.testing.assert_allclose(p.numpy(), np.asarray(x), rtol=1e-10, atol=1e-10)
        assert first.size == 0 or np.abs(p.numpy() - first).max() > 1e-3


@pytest.mark.torch
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_resumed_torch_optimizer_continues_bit_for_bit(tmp_path: Path, dtype: str) -> None:
    import torch

    make = exported(CONFIGS["whole"])
    w = [torch.linspace(-1, 1, 12).reshape(3, 4).to(getattr(torch, dtype)), torch.ones(3).to(getattr(torch, dtype))]
    optimizer = make(w)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 3, 0.5)

    def train(steps: int) -> None:
        for _ in range(steps):
            for p in w:
                p.grad = 2 * p - 1
            optimizer.step()
            scheduler.step()

    train(5)
    torch.save((optimizer.state_dict(), scheduler.state_dict(), w), tmp_path / "checkpoint")
    train(5)
    expected = w
    states, schedule, w = torch.load(tmp_path / "checkpoint", weights_only=True)
    optimizer = make(w)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 3, 0.5)
    optimizer.load_state_dict(states)
    scheduler.load_state_dict(schedule)
    assert optimizer.state[w[0]]["rms"].dtype == torch.float32
    train(5)
    assert optimizer.param_groups[0]["lr"] == 0.125
    assert all(torch.equal(a, b) for a, b in zip(w, expected, strict=True))


@pytest.mark.torch
def test_gradients_and_closures_are_treated_as_by_torch() -> None:
    import torch

    make = exported(CONFIGS["whole"])
    moved, still = torch.ones(3, requires_grad=True), torch.ones(3, requires_grad=True)
    optimizer = make([{"params": [moved]}, {"params": [still], "lr": 0.1}])

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = (moved**2).sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 3
    assert not torch.equal(moved.detach(), torch.ones(3))
    assert torch.equal(still.detach(), torch.ones(3)) and not optimizer.state[still]
    optimizer.zero_grad()
    assert moved.grad is None and optimizer.step() is None

    up, down = torch.ones(3), torch.ones(3)
    up.grad, down.grad = torch.arange(3.0), -torch.arange(3.0)
    make([up], maximize=True).step()
    make([down]).step()
    assert torch.equal(up, down)

    sparse = torch.ones(3)
    sparse.grad = torch.eye(3)[0].to_sparse()
    with pytest.raises(RuntimeError, match="does not support sparse gradients"):
        make([sparse]).step()
    number = torch.ones(3, dtype=torch.complex64)
    number.grad = number.clone()
    with pytest.raises(RuntimeError, match=r"not torch\.complex64"):
        make([number]).step()
    for bad in ({"lr": -1.0}, {"weight_decay": -1.0}, {"lr": float("nan")}):
        with pytest.raises(ValueError, match="Invalid"):
            make([moved], **bad)


@pytest.mark.torch
@pytest.mark.parametrize("name", ["whole", "orthogonal"])
@pytest.mark.parametrize("size", [1e5, 1e15, 1e30])
def test_large_gradients_and_weights_equal_those_of_optax(name: str, size: float) -> None:
    import torch

    config = CONFIGS[name]
    g, start = (np.linspace(*ends, 6, dtype=np.float32).reshape(2, 3) for ends in ((-1, 2), (-2, 1)))
    g *= np.float32(size)
    p = torch.tensor(start)
    p.grad = torch.tensor(g)
    exported(config)([p]).step()
    tx = usable(config, jnp.asarray(theta_of(config)))
    updates, _ = tx.update(jnp.asarray(g), tx.init(jnp.asarray(start)), jnp.asarray(start))
    np.testing.assert_allclose(p.numpy(), start + np.asarray(updates), rtol=1e-6)


@pytest.mark.torch
def test_copies_new_groups_and_tensor_rates_work() -> None:
    import copy

    import torch

    make = exported(CONFIGS["whole"])
    p, late = torch.ones(3), torch.ones(3)
    p.grad = late.grad = torch.arange(3.0)
    optimizer = make([p], lr=torch.tensor(0.5))
    optimizer.step()
    optimizer.add_param_group({"params": [late], "lr": 0.5})
    twin = copy.deepcopy(optimizer)
    optimizer.step()
    twin.step()
    for ours, theirs in zip(optimizer.param_groups, twin.param_groups, strict=True):
        assert torch.equal(ours["params"][0], theirs["params"][0])
    alone = torch.ones(3)
    alone.grad = torch.arange(3.0)
    make([alone], lr=0.5).step()
    assert torch.equal(alone, late)  # its steps count from its own first gradient
