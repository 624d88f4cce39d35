"""Taking a learned optimizer away: a Python module of its own that needs jax and optax, or a file with theta alone."""

import hashlib
from base64 import b85encode
from pathlib import Path

import numpy as np

from common import checkpoint
from common.config import Config, OptimizerConfig
from common.errors import UserError

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


def module_source(config: OptimizerConfig, theta: np.ndarray, origin: str, module: str) -> str:
    """The text of a self-contained module, whose code is that of the family in this project."""
    family = "mlp" if config.family == "mlp" else "hand"
    code = (Path(__file__).parent.parent / "common" / "optimizer" / f"{family}.py").read_text()
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


def write(config: Config, theta: np.ndarray, origin: str, path: Path) -> None:
    """Writes a module when the path ends in `.py`, else a record with theta and what it means.

    Raises UserError when the place cannot be written.
    """
    try:
        if path.suffix == ".py":
            path.write_text(module_source(config.optimizer, theta, origin, path.stem))
        else:
            checkpoint.save(path, theta_record(config.optimizer, theta, origin))
    except OSError as error:
        raise UserError(f"cannot write {path} ({error.strerror}): choose another place with -o") from None


def theta_record(config: OptimizerConfig, theta: np.ndarray, origin: str) -> dict:
    """What a theta file holds."""
    return {"kind": "theta", "theta": np.asarray(theta, "<f4"), "optimizer": vars(config) | {}, "origin": origin}
