"""Export of a learned optimizer: as a self-contained Python module for optax or torch, or as a theta file."""

import ast
import hashlib
import keyword
import re
from base64 import b85encode
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cluster.report.literals import escaped, in_lines
from cluster.report.torch_export import torch_source
from common import pretrained
from common.config import OptimizerConfig
from common.errors import UserError
from common.pretrained import Pretrained, safetensors_file

# Nothing but numbers and checked names is pasted into this text: `origin` and the path come from files and users.
HEAD = '''"""A learned optimizer for optax.

    >>> import jax.numpy as jnp, optax
    >>> from {module} import optimizer
    >>> params = {{"w": jnp.ones(3)}}
    >>> tx = optimizer({example})
    >>> state = tx.init(params)
    >>> updates, state = tx.update({{"w": 2 * params["w"]}}, state, params)
    >>> params = optax.apply_updates(params, updates)

Exported by outertrain; ORIGIN says from where. theta has {size} numbers, sha256
{sha256}.
"""

{imports}

'''

TAIL = '''ORIGIN = {origin}
_THETA = {lines}


def theta() -> jax.Array:
    """The learned parameters [{size}] float32."""
    data = base64.b85decode(_THETA)
    return jnp.asarray(struct.unpack("<{size}f", data), jnp.float32)


def optimizer({arguments}) -> optax.GradientTransformationExtraArgs:
    """The learned optimizer.
{notes}
    """
    return {call}
'''

PARTS = {  # family -> modules of common/optimizer whose source it needs, in order
    "mlp": ("perceptron", "mlp", "leaves", "drop_in"),
    "mlp_lopt": ("perceptron", "leaves", "tensor_rule", "mlp_lopt"),
    "adafactor_mlp": ("perceptron", "leaves", "tensor_rule", "factored", "adafactor_mlp"),
    "celo2": ("perceptron", "leaves", "tensor_rule", "factored", "celo2"),
    "mlp_muon": ("perceptron", "leaves", "tensor_rule", "mlp_muon"),
}

MLP_NOTES = """
    `update` needs `params`. Leaves are real floating-point numbers of any precision; the state is float32 (float64 for
    float64 parameters), ten numbers for each parameter, and sharded like the parameters. Updates have the dtype of the
    gradients. Wrap it like any optimizer of optax: optax.chain, masked, multi_transform, apply_if_finite, MultiSteps.

    Inputs are normalized over each leaf. Where a leaf stacks the layers of a scanned model along axis 0, normalize
    each layer separately with

        tx = optimizer()
        per_layer = optax.GradientTransformation(jax.vmap(tx.init), jax.vmap(tx.update))

    for these leaves (optax.multi_transform), which gives the updates of unstacked layers. Inside jax.shard_map and
    jax.pmap a leaf is the shard of one device; with sharded parameters under jax.jit it is the whole array."""

PER_TENSOR_NOTES = """
    `update` needs `params`. Leaves are real floating-point numbers of any precision; the state is float32 (float64 for
    float64 parameters). Updates have the dtype of the gradients. Wrap it like any optimizer of optax.

    Args:
        rate: factor of the update, a number or a schedule of optax; {rate} is how it was trained.
        weight_decay: decoupled: each step subtracts rate * weight_decay * parameter as well.
        rest: another optimizer, for tensors of rank below two; None: this one updates them."""

PROGRESS_NOTES = """
        total_steps: steps of the training, of which the optimizer sees how many are done."""

HAND_DESIGNED_NOTES = """
    Computes in float32 or wider; updates have the dtype of the gradients."""


def module_source(config: OptimizerConfig, theta: np.ndarray, origin: str, module: str) -> str:
    """Returns the source of a self-contained module named `module`, whose code is that of this project."""
    data = np.asarray(theta, "<f4").tobytes()
    text = b85encode(data).decode()
    importable = module.isidentifier() and module.isascii() and not keyword.iskeyword(module)
    sources = [_code(part) for part in PARTS.get(config.family, ("hand_designed",))]
    head = HEAD.format(
        module=module if importable else "my_optimizer",
        size=len(theta),
        sha256=hashlib.sha256(data).hexdigest(),
        imports=_imports(sources),
        example="total_steps=100" if config.progress else "",
    )
    tail = TAIL.format(
        lines=in_lines(text),
        size=len(theta),
        origin=escaped(str(origin)),
        **_optimizer(config),
    )
    return "\n\n".join([head + _without_head(sources[0]), *map(_without_head, sources[1:]), tail])


def _optimizer(config: OptimizerConfig) -> dict[str, str]:
    """Arguments, notes and result of the module's function `optimizer`."""
    if config.family == "mlp":
        call = (
            f"drop_in(theta(), hidden={int(config.hidden)}, momentum_features={bool(config.momentum_features)}, "
            f"time_features={bool(config.time_features)})"
        )
        return dict(arguments="", notes=MLP_NOTES, call=call)
    if config.family not in PARTS:
        call = f"optax.with_extra_args_support({config.family}(theta()))"
        return dict(arguments="", notes=HAND_DESIGNED_NOTES, call=call)
    from common.optimizer import per_tensor_options  # loads JAX

    rate, unit = (float(config.learning_rate), ", rate=1.0") if config.family == "celo2" else (1.0, "")
    unit += ", total_steps=total_steps" if config.progress else ""
    options = "".join(f", {name}={value!r}" for name, value in per_tensor_options(config).items())
    return dict(
        arguments=("\n    total_steps: int," if config.progress else "")
        + f"""
    rate: optax.ScalarOrSchedule = {rate!r},
    weight_decay: float = 0.0,
    rest: optax.GradientTransformation | None = None,
""",
        notes=PER_TENSOR_NOTES.format(rate=rate) + (PROGRESS_NOTES if config.progress else ""),
        call=f"configured(transform(theta(){options}{unit}), rate, weight_decay, rest)",
    )


def _code(name: str) -> str:
    """The source of a module of common/optimizer."""
    return (Path(__file__).parents[2] / "common" / "optimizer" / f"{name}.py").read_text(encoding="utf-8")


def _without_head(source: str) -> str:
    """The source after its docstring and imports."""
    head = [node for node in ast.parse(source).body if isinstance(node, ast.Import | ast.ImportFrom)]
    return "\n".join(source.splitlines()[head[-1].end_lineno :]).strip() + "\n"


def _imports(sources: Sequence[str]) -> str:
    """The import block of a module that holds all sources: standard library, then JAX and optax."""
    plain, names = {"import base64", "import struct"}, defaultdict[str, set[str]](set)
    for node in (node for source in sources for node in ast.parse(source).body):
        if isinstance(node, ast.Import):
            plain.add(ast.unparse(node))
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] != "common":
            names[node.module] |= {alias.name for alias in node.names}
    lines = [*sorted(plain), *(f"from {module} import {', '.join(sorted(names[module]))}" for module in sorted(names))]
    third_party = [line for line in lines if re.match(r"(import|from) (jax|optax)", line)]
    return "\n".join([*(line for line in lines if line not in third_party), "", *third_party])


def write(learned: Pretrained, path: Path, framework: str = "optax") -> None:
    """Writes a module if the path ends in `.py`, safetensors if it ends in `.safetensors`, otherwise a theta file.

    Args:
      framework: "optax" or "torch": what the module needs; a theta file serves both.

    Raises:
      UserError: the path names no file or cannot be written, or the optimizer cannot be written for torch.
    """
    theta, optimizer, origin = learned
    if not path.name:
        raise UserError(f"cannot write {path}, which is a folder: name a file with -o")
    if framework == "torch" and path.suffix != ".py":
        raise UserError(f"--framework selects what a module needs, and {path} is not a .py file: name one with -o")
    try:
        if framework == "torch":
            path.write_text(torch_source(optimizer, theta, origin), encoding="utf-8")
        elif path.suffix == ".py":
            path.write_text(module_source(optimizer, theta, origin, path.stem), encoding="utf-8")
        elif path.suffix == safetensors_file.SUFFIX:
            safetensors_file.save(path, learned)
        else:
            pretrained.save(path, learned)
    except OSError as error:
        raise UserError(f"cannot write {path} ({error.strerror}): choose another path with -o") from None
