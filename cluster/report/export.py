"""Taking a learned optimizer away: a Python module of its own that needs jax and optax, or a file with theta alone."""

import hashlib
from base64 import b85encode
from pathlib import Path

import numpy as np

from cluster.runs import directory
from cluster.runs.directory import load_theta
from common import pretrained
from common.config import OptimizerConfig
from common.errors import UserError
from common.pretrained import Pretrained

HEAD = '''"""A learned optimizer: `optimizer()` is an optax gradient transformation; its `update` needs `params`.

    import optax
    from {module} import optimizer
    tx = optimizer()
    state = tx.init(params)
    updates, state = tx.update(grads, state, params)
    params = optax.apply_updates(params, updates)

Made by outertrain {origin}. theta: {size} numbers, sha256 {sha256}.
"""

'''

TAIL = '''

_THETA = (
{lines}
)


def theta() -> "jax.Array":
    """The learned parameters [{size}] float32."""
    data = base64.b85decode(_THETA)
    return jnp.asarray(struct.unpack("<{size}f", data), jnp.float32)


def optimizer() -> optax.GradientTransformation:
    """The learned optimizer."""
    return {call}
'''


def find(target: str, version: int | None = None) -> Pretrained:
    """What a run has learned up to an outer update (default: the newest), or what a theta file or a shipped name holds.

    Raises UserError when it is none of these.
    """
    path = pretrained.find(target)
    if path is None or target in directory.names():
        run = directory.find(target)
        theta, version = load_theta(run, version)
        return Pretrained(theta, run.config().optimizer, f"from run {run.name}, outer update {version}")
    if version is not None:
        raise UserError(f"--version chooses a checkpoint of a run, but {target} is none: leave it out")
    return pretrained.load(path)


def module_source(config: OptimizerConfig, theta: np.ndarray, origin: str, module: str) -> str:
    """The text of a self-contained module, whose code is that of the family in this project."""
    family = "mlp" if config.family == "mlp" else "hand_designed"
    code = (Path(__file__).parents[2] / "common" / "optimizer" / f"{family}.py").read_text()
    data = np.asarray(theta, "<f4").tobytes()
    head = HEAD.format(module=module, origin=origin, size=len(theta), sha256=hashlib.sha256(data).hexdigest())
    text = b85encode(data).decode()
    lines = "\n".join(f'    "{text[k : k + 100]}"' for k in range(0, len(text), 100))
    tail = TAIL.format(lines=lines, size=len(theta), call=_call(config))
    return head + "import base64\nimport struct\n" + _without_docstring(code) + tail


def _call(config: OptimizerConfig) -> str:
    if config.family != "mlp":
        return f"{config.family}(theta())"
    return (
        f"transform(theta(), hidden={config.hidden}, momentum_features={config.momentum_features}, "
        f"time_features={config.time_features})"
    )


def _without_docstring(code: str) -> str:
    _, _, rest = code.split('"""', 2)
    return rest


def write(learned: Pretrained, path: Path) -> None:
    """Writes a module when the path ends in `.py`, else a file that holds theta and what it means.

    Raises UserError when the place cannot be written.
    """
    theta, optimizer, origin = learned
    try:
        if path.suffix == ".py":
            path.write_text(module_source(optimizer, theta, origin, path.stem))
        else:
            pretrained.save(path, learned)
    except OSError as error:
        raise UserError(f"cannot write {path} ({error.strerror}): choose another place with -o") from None
