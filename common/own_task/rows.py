"""The data of a user's task: arrays of rows, their division into outer and inner splits, and what is said about it.

Half of the rows, drawn once by `dataset.seed`, train the optimizer (outer_train), and the other half test it (outer_test).
Each task divides the rows of its half at random into 70 % train, 15 % valid and 15 % test. Data of a function are
divided in the same way, without the halves: each call returns the rows of another task.
"""

import hashlib
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from common.errors import UserError
from common.own_task.signature import parameters
from common.task_family import SPLITS

TRAIN, VALID = 0.7, 0.15  # fractions of the rows of a task; the rest is test
FEWEST = 10  # rows of a task, for one of each inner split at least
KINDS = "biuf"  # NumPy's codes of Booleans, integers and floating-point numbers


class Rows(NamedTuple):
    """Where the tasks of a user take their rows."""

    draw: Callable[[np.random.Generator, str], Any]  # (random, outer_split) -> arrays [rows, ...] of one task
    source: str  # a few words on where the rows come from, for messages
    fingerprint: str = ""  # hash of the arrays; "" for those of a function

    def task(self, random: np.random.Generator, outer_split: str) -> dict[str, Any]:
        """The rows of one task by inner split, each a pytree like the data."""
        arrays = self.draw(random, outer_split)
        order, ends = random.permutation(count(arrays)), bounds(count(arrays))
        parts = zip(SPLITS, np.split(order, ends))
        return {split: jax.tree.map(lambda x, rows=rows: x[rows], arrays) for split, rows in parts}


def open_rows(data: Any, seed: int) -> Rows:
    """The rows of `outertrain.Task.data`.

    Args:
      data: a pytree of arrays with one row per example, the path of an `.npz` file of such arrays, or a function
        (random) or (random, outer_split) -> such a pytree for one task.
      seed: of the division into halves.

    Raises:
      UserError: the data cannot be read, are no numbers in JAX's range, or differ in their number of rows.
    """
    if callable(data):
        return Rows(_function(data), f"each task calls {getattr(data, '__name__', 'the function')}")
    arrays, name = (_read(Path(data)), str(data)) if isinstance(data, str | Path) else (data, "the data")
    arrays = checked(arrays, name)
    halves = np.array_split(np.random.default_rng(seed).permutation(count(arrays)), 2)
    if len(halves[1]) < FEWEST:
        raise UserError(
            f"{name} have {count(arrays)} rows, too few to divide: {2 * FEWEST} are needed at least, half of which train the "
            "optimizer, while the other half test it"
        )
    chosen = {"outer_train": halves[0][: len(halves[1])], "outer_test": halves[1]}  # equal shapes for every task

    def draw(random: np.random.Generator, outer_split: str) -> Any:
        return jax.tree.map(lambda x: x[chosen[outer_split]], arrays)

    source = f"{count(arrays)} rows, half of which train the optimizer while the other half test it"
    return Rows(draw, source, _fingerprint(arrays))


def _fingerprint(arrays: Any) -> str:
    """Sha256 (hex) of names, shapes, dtypes and contents."""
    digest = hashlib.sha256()
    for path, array in jax.tree_util.tree_flatten_with_path(arrays)[0]:
        digest.update(repr((jax.tree_util.keystr(path), array.shape, array.dtype.name)).encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _function(data: Callable[..., Any]) -> Callable[[np.random.Generator, str], Any]:
    name = getattr(data, "__name__", "the function of the data")
    call = _with_split(data)

    def draw(random: np.random.Generator, outer_split: str) -> Any:
        arrays = checked(call(random, outer_split), f"the data that {name} returned")
        if count(arrays) < FEWEST:
            raise UserError(f"the data that {name} returned have {count(arrays)} rows: return at least {FEWEST}")
        return arrays

    return draw


def _with_split(data: Callable[..., Any]) -> Callable[[np.random.Generator, str], Any]:
    """The function with the outer split as an argument of that name, as the second one that has no default, or left out."""
    found = parameters(data, "the data")
    if any(p.name == "outer_split" and p.kind is not p.POSITIONAL_ONLY for p in found):
        return lambda random, outer_split: data(random, outer_split=outer_split)
    required = [p for p in found if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) and p.default is p.empty]
    return data if len(required) > 1 else lambda random, outer_split: data(random)


def _read(path: Path) -> Mapping[str, np.ndarray]:
    """The arrays of an `.npz` file by name."""
    if not path.is_file():
        raise UserError(
            f"the data file {str(path)!r} does not exist in {Path.cwd()}: write an .npz file there with numpy.savez, or give an "
            "absolute path"
        )
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (OSError, ValueError, AttributeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(
            f"the data file {str(path)!r} cannot be read as .npz ({error}): write it with numpy.savez, with arrays of numbers"
        ) from None


def checked(arrays: Any, name: str) -> Any:
    """The pytree as NumPy arrays of numbers with equally many rows. Raises UserError otherwise."""
    leaves, tree = jax.tree_util.tree_flatten_with_path(arrays)
    if not leaves:
        raise UserError(f"{name} hold no array: give arrays with one row per example, such as {{'x': x, 'y': y}}")
    found = []
    for path, leaf in leaves:
        array, where = np.asarray(leaf), f"{name}{jax.tree_util.keystr(path)}"
        if array.dtype.kind not in KINDS and array.dtype.name != "bfloat16":
            raise UserError(f"{where} have dtype {array.dtype}: give numbers, such as numpy.int32 codes of the classes")
        if array.ndim == 0:
            raise UserError(f"{where} is a single number: give an array with one row per example")
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            bad = int((~np.isfinite(array)).sum())
            raise UserError(f"{where} hold {bad} numbers that are not finite: remove or replace these")
        _check_range(array, where)
        found.append(array)
    counts = {jax.tree_util.keystr(path): len(array) for (path, _), array in zip(leaves, found)}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{key or 'the array'} {rows}" for key, rows in counts.items())
        raise UserError(f"{name} differ in their number of rows ({listed}): give one row of each per example")
    return jax.tree.unflatten(tree, found)


def _check_range(array: np.ndarray, where: str) -> None:
    """Raises UserError for numbers out of the range of JAX's dtype, which has 32 bits where the array has 64."""
    kept = jax.dtypes.canonicalize_dtype(array.dtype)
    if kept == array.dtype or not array.size:
        return
    limits = np.iinfo(kept) if kept.kind in "iu" else np.finfo(kept)
    least, largest = array.min(), array.max()
    if least < limits.min or largest > limits.max:
        raise UserError(
            f"{where} hold numbers from {least!s} to {largest!s}, but JAX keeps them as {kept}, from {limits.min!s} to "
            f"{limits.max!s}: number codes from 0, and shift or scale other numbers into this range"
        )


def count(arrays: Any) -> int:
    """Rows of a pytree of arrays."""
    return len(jax.tree.leaves(arrays)[0])


def bounds(rows: int) -> list[int]:
    """Where the rows of a task are cut into train, valid and test; each has one row at least."""
    train = round(rows * TRAIN)
    return [train, train + max(1, round(rows * VALID))]


def keys_of(data: Any) -> str:
    """The keys of a dictionary of arrays, quoted, for messages; "" for other structures."""
    return ", ".join(map(repr, data)) if isinstance(data, Mapping) else ""
