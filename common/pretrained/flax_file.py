"""Thetas that flax has serialized (msgpack), of google/learned_optimization and of Celo2; read without flax or pickle.

flax writes a tree of dictionaries; an array is the msgpack extension 1, whose content is (shape, dtype, bytes). Read are
the thetas of `MLPLOpt`, `AdafacMLPLOpt` and Celo2, alone or under the key "params" of a checkpoint.
"""

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import msgpack
import numpy as np

from common.checkpoint import CorruptRecord
from common.config import OptimizerConfig
from common.pretrained.learned import Pretrained, checked, content

MOST_BYTES = 16 * 2**20
MOST_LAYERS = 64
_ARRAY = 1
_CELO2_INPUTS = (1, 1, 1, 3, 1, 3, 1, 3, 1, 3, 3, 3, 3, 3)  # rows of w0__0, w0__1, ...

Tensors = Mapping[str, np.ndarray]


class Layers(NamedTuple):
    """A perceptron: kernels [n, m] and biases [m]."""

    kernels: Sequence[np.ndarray]
    biases: Sequence[np.ndarray]

    def hidden(self) -> tuple[int, ...]:
        return tuple(len(bias) for bias in self.biases[:-1])

    def flat(self) -> list[np.ndarray]:
        return [part.ravel() for pair in zip(self.kernels, self.biases) for part in pair]

    def fits(self, inputs: int, outputs: int) -> bool:
        if any(bias.ndim != 1 for bias in self.biases):
            return False
        widths = (inputs, *self.hidden(), outputs)
        return [kernel.shape for kernel in self.kernels] == list(pairwise(widths)) and [
            bias.shape for bias in self.biases
        ] == [(n,) for n in widths[1:]]


def is_flax(head: bytes) -> bool:
    """Whether a file with these first bytes may be one: it begins with a msgpack dictionary."""
    return bool(head) and (0x80 < head[0] <= 0x8F or head[0] in (0xDE, 0xDF))


def load(path: Path) -> Pretrained:
    """Theta of one of the three optimizers.

    Raises:
      UserError: the file is corrupt, too large, or the theta of another optimizer.
    """
    data = content(path, MOST_BYTES)
    try:
        tree = msgpack.unpackb(data, ext_hook=_array, strict_map_key=False)
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise CorruptRecord(
            f"{path} cannot be read as a theta of flax ({error or type(error).__name__}): use another copy of it"
        ) from None
    if isinstance(tree, dict) and isinstance(tree.get("params"), dict):
        tree = tree["params"]
    tensors = _flat(tree)
    if any(name.startswith(("lstm_init_state/", "rnn_params/")) for name in tensors):
        raise CorruptRecord(
            f"{path} is a theta of Celo or VeLO, whose recurrent network outertrain does not have: "
            "name a theta of Celo2, AdafacMLPLOpt or MLPLOpt"
        )
    for read in (_celo2, _adafactor_mlp, _mlp_lopt):
        if (found := read(tensors)) is not None:
            optimizer, parts, name = found
            theta = np.concatenate(parts).astype(np.float32)
            return checked(Pretrained(theta, optimizer, f"from {path.name}, a theta of {name}"), path)
    raise CorruptRecord(
        f"{path} holds no theta that outertrain knows: those of Celo2, AdafacMLPLOpt and MLPLOpt in float32, with the "
        "published inputs, can be read"
    )


def _array(code: int, data: bytes) -> np.ndarray:
    """A float32 array. Nothing larger than `data` is allocated."""
    if code != _ARRAY:
        return np.zeros(0, np.uint8)  # a complex number or a NumPy scalar: part of no theta
    shape, dtype, raw = msgpack.unpackb(data)
    if not isinstance(shape, list) or not all(isinstance(n, int) and n >= 0 for n in shape) or len(shape) > 2:
        return np.zeros(0, np.uint8)
    if dtype != "float32":
        return np.zeros(0, np.uint8)
    if not isinstance(raw, bytes) or 4 * prod(shape) != len(raw):
        raise ValueError("an array's bytes do not match its shape")
    return np.frombuffer(raw, "<f4").reshape(shape)


def _flat(tree: Any, prefix: str = "") -> dict[str, np.ndarray]:
    """The float32 arrays of a tree by their paths; dictionaries nest at most 8 deep."""
    found: dict[str, np.ndarray] = {}
    for key, value in tree.items() if isinstance(tree, dict) and prefix.count("/") < 8 else ():
        if isinstance(value, dict):
            found |= _flat(value, f"{prefix}{key}/")
        elif isinstance(value, np.ndarray) and value.dtype == np.float32:
            found[f"{prefix}{key}"] = value
    return found


Found = tuple[OptimizerConfig, list[np.ndarray], str]


def _celo2(tensors: Tensors) -> Found | None:
    stack = _under(tensors, "ff_mod_stack/")
    first = [stack.pop(f"w0__{k}", None) for k in range(len(_CELO2_INPUTS))]
    if any(part is None or part.ndim != 2 for part in first):
        return None
    if [len(part) for part in first if part is not None] != list(_CELO2_INPUTS):
        return None
    if len({part.shape[1] for part in first if part is not None}) != 1:
        return None
    layers = _layers({**stack, "w0": np.concatenate([part for part in first if part is not None])}, "w{}", "b{}")
    if layers is None or not layers.fits(30, 3):
        return None
    return OptimizerConfig(family="celo2", layers=layers.hidden()), layers.flat(), "Celo2"


def _adafactor_mlp(tensors: Tensors) -> Found | None:
    decays = [tensors.get(f"{name}_decays") for name in ("momentum", "rms", "adafactor")]
    if [None if part is None else part.shape for part in decays] != [(3,), (1,), (3,)]:
        return None
    layers = _layers(_under(tensors, "nn/"), "w{}", "b{}")
    if layers is None or not layers.fits(39, 2):
        return None
    offsets = [part for part in decays if part is not None]
    config = OptimizerConfig(family="adafactor_mlp", layers=layers.hidden())
    return config, [*offsets, *layers.flat()], "AdafacMLPLOpt"


def _mlp_lopt(tensors: Tensors) -> Found | None:
    # haiku names the layers mlp/~/linear_0, mlp/~/linear_1, ..., each with w and b.
    layers = _layers(
        {re.sub(r"^mlp/~/", "", name): part for name, part in tensors.items()}, "linear_{}/w", "linear_{}/b"
    )
    if layers is None or not layers.fits(19, 2):
        return None
    return OptimizerConfig(family="mlp_lopt", layers=layers.hidden()), layers.flat(), "MLPLOpt"


def _under(tensors: Tensors, prefix: str) -> dict[str, np.ndarray]:
    """The tensors below a path, by their names without it and without haiku's "~"."""
    return {
        name.removeprefix(prefix).removeprefix("~/"): part for name, part in tensors.items() if name.startswith(prefix)
    }


def _layers(tensors: Tensors, kernel: str, bias: str) -> Layers | None:
    """The layers 0, 1, ... if these are all of the tensors."""
    count = len(tensors) // 2
    names = [(kernel.format(k), bias.format(k)) for k in range(min(count, MOST_LAYERS))]
    if count < 2 or {name for pair in names for name in pair} != set(tensors):
        return None
    return Layers([tensors[w] for w, _ in names], [tensors[b] for _, b in names])
