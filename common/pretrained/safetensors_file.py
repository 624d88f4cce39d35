"""Theta as a safetensors file: one tensor for each tensor of theta, and what the optimizer is in the metadata.

Needs no network, and runs no code of the file. https://github.com/huggingface/safetensors defines the format.
"""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as parse
from safetensors.numpy import save as serialize

from common import configfile, files
from common.checkpoint import CorruptRecord
from common.config import OptimizerConfig
from common.pretrained.learned import Pretrained, checked, content

SUFFIX = ".safetensors"
FILE = "model.safetensors"  # name in a folder, as model hubs expect it
MOST_BYTES = 64 * 2**20
_KEY = "outertrain"  # of the metadata: JSON with the [optimizer] section and the origin


def tensor_names(layout: tuple[tuple[int, ...], ...]) -> list[str]:
    """Names of theta's tensors: layers.0.kernel, layers.0.bias, ...; vectors before the first kernel are values.0, ..."""
    names: list[str] = []
    kernels = 0
    for k, shape in enumerate(layout):
        if len(shape) == 2:
            names.append(f"layers.{kernels}.kernel")
            kernels += 1
        else:
            names.append(f"layers.{kernels - 1}.bias" if kernels else f"values.{k}")
    return names


def save(path: Path, learned: Pretrained) -> None:
    """Writes the file atomically. Raises OSError."""
    layout = _layout(learned.optimizer)
    ends = np.cumsum([int(np.prod(shape)) for shape in layout])
    parts = np.split(np.ascontiguousarray(learned.theta, np.float32), ends[:-1])
    tensors = {name: part.reshape(shape) for name, part, shape in zip(tensor_names(layout), parts, layout)}
    facts = {"optimizer": asdict(learned.optimizer), "origin": learned.origin}
    files.replace(path, serialize(tensors, metadata={_KEY: json.dumps(facts)}))


def load(path: Path) -> Pretrained:
    """Returns the content of a file that `save` wrote.

    Raises:
      UserError: it is corrupt, too large or another kind of file, or its tensors do not fit its optimizer.
    """
    data = content(path, MOST_BYTES)
    try:
        tensors = parse(data)
    except (SafetensorError, ValueError, KeyError, TypeError, OverflowError) as error:
        raise CorruptRecord(f"{path} is not a usable safetensors file ({error}): use another copy of it") from None
    optimizer, origin = _facts(path, data)
    layout = _layout(optimizer)
    names = tensor_names(layout)
    if set(tensors) != set(names):
        wrong = sorted(set(tensors) ^ set(names))[0]
        raise CorruptRecord(
            f"{path} does not hold the tensors of its optimizer ({wrong!r} is missing or too much): export it again"
        )
    for name, shape in zip(names, layout):
        found = tensors[name]
        if found.shape != shape or found.dtype != np.float32:
            raise CorruptRecord(
                f"{path}: the tensor {name} is {found.dtype} {list(found.shape)}, and its optimizer needs float32 "
                f"{list(shape)}: export it again"
            )
    theta = np.concatenate([tensors[name].ravel() for name in names])
    return checked(Pretrained(theta, optimizer, origin), path)


def _facts(path: Path, data: bytes) -> tuple[OptimizerConfig, str]:
    """The [optimizer] section and the origin in the metadata of a valid file."""
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    try:
        facts = json.loads(header.get("__metadata__", {})[_KEY])
        section, origin = facts["optimizer"], facts["origin"]
    except (KeyError, TypeError, ValueError, RecursionError):
        section, origin = None, None
    if not isinstance(section, dict) or not isinstance(origin, str):
        raise CorruptRecord(
            f"{path} does not say which optimizer it belongs to (metadata key {_KEY!r}): "
            "write one with outertrain export RUN -o FILE.safetensors"
        )
    return configfile.from_dict({"optimizer": section}).optimizer, origin


def _layout(optimizer: OptimizerConfig) -> tuple[tuple[int, ...], ...]:
    from common.optimizer import make_family  # loads JAX

    return make_family(optimizer).layout
