"""Text of the language tasks as codes of characters: the sources of Python's standard library, or files of the user.

The text is cut into segments, which are divided into outer-train and outer-test, so that an optimizer is evaluated on
text that no task of its training contains. A task is an excerpt of one of the two: blocks that follow each other, which
are divided at random into the inner splits.
"""

import hashlib
import os
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from common import streams
from common.data.dataset import OUTER_TRAIN_FRACTION
from common.errors import UserError

PRINTABLE = range(0x20, 0x7F)  # of ASCII; they have the codes 3 .. 97
OTHER, NEWLINE, TAB = 0, 1, 2  # the other codes; each character that is not ASCII is one OTHER
VOCABULARY = 3 + len(PRINTABLE)
BLOCK = 1024  # characters; a sequence lies within one block
TASK_BLOCKS = 256  # of an excerpt, at most
SEGMENTS = 50
TRAIN, VALID = 0.8, 0.1  # of the blocks of a task; the others are test
READ_BYTES = 64 * 2**20  # of a text, at most: what follows is not used
TESTS = {"test", "tests", "idle_test"}  # folders of the standard library that some installations lack
INSTALLED = {"site-packages", "dist-packages", "__pycache__"}
BUILD = "_sysconfigdata"  # beginning of the name of a module that differs from machine to machine


class Corpus(NamedTuple):
    """The text of a configuration."""

    blocks: dict[str, np.ndarray]  # by outer split, [n, BLOCK] uint8
    fingerprint: str  # sha256 of the codes


def open_corpus(place: str, seed: int) -> Corpus:
    """The text of a file or of the files of a folder; of "", the sources of the standard library.

    Args:
      seed: of the division into outer-train and outer-test, `dataset.seed`.

    Raises:
      UserError: there is no such text, or too little of it.
    """
    codes = _codes(place)
    length = len(codes) // (SEGMENTS * BLOCK)  # of a segment, in blocks
    if length == 0:
        raise UserError(
            f"{_name(place)} has {len(codes):,} characters: give a text of at least {SEGMENTS * BLOCK:,}, so that tasks of "
            "training and of evaluation can have different parts of it"
        )
    segments = codes[: SEGMENTS * length * BLOCK].reshape(SEGMENTS, length, BLOCK)
    order = streams.generator(streams.TEXT_SPLIT, seed).permutation(SEGMENTS)
    boundary = round(OUTER_TRAIN_FRACTION * SEGMENTS)
    chosen = {"outer_train": np.sort(order[:boundary]), "outer_test": np.sort(order[boundary:])}
    blocks = {split: segments[rows].reshape(-1, BLOCK) for split, rows in chosen.items()}
    return Corpus(blocks, hashlib.sha256(codes.tobytes()).hexdigest())


def excerpt(corpus: Corpus, random: np.random.Generator, outer_split: str) -> dict[str, np.ndarray]:
    """One task: blocks [n, BLOCK] uint8 of each inner split, as many for every task of the corpus."""
    blocks = corpus.blocks[outer_split]
    count = min(TASK_BLOCKS, *map(len, corpus.blocks.values()))
    rows = (random.integers(len(blocks)) + random.permutation(count)) % len(blocks)
    train = round(TRAIN * count)
    valid = train + max(1, round(VALID * count))
    return dict(zip(("train", "valid", "test"), (blocks[part] for part in np.split(rows, [train, valid]))))


def encode(text: bytes) -> np.ndarray:
    """The codes [n] uint8 of UTF-8 text; carriage returns are left out, and bytes that are no UTF-8 are OTHER."""
    found = np.frombuffer(text, np.uint8)
    continues = (found & 0xC0) == 0x80  # all bytes of a character but its first one
    table = np.full(256, OTHER, np.uint8)
    table[PRINTABLE] = np.arange(3, VOCABULARY)
    table[ord("\n")], table[ord("\t")] = NEWLINE, TAB
    return table[found[~continues & (found != ord("\r"))]]


def decode(codes: np.ndarray) -> str:
    """The text of codes [n], with a replacement character for OTHER."""
    return "".join(np.array(["\N{REPLACEMENT CHARACTER}", "\n", "\t", *map(chr, PRINTABLE)])[codes])


def _codes(place: str) -> np.ndarray:
    """All codes [n] uint8 of a text, its files in the order of their names, each ended by a newline."""
    parts, left = [], READ_BYTES
    for path in _files(place):
        try:
            with path.open("rb") as file:
                text = file.read(left)
        except OSError as error:
            raise UserError(
                f"dataset.text: {path} cannot be read ({error.strerror}): remove it, or name other text"
            ) from None
        if b"\0" in text:  # no text
            continue
        parts.append(encode(text + b"\n"))
        left -= len(text)
        if left <= 0:
            break
    if not parts:
        raise UserError(f"{_name(place)} has no text in UTF-8: name a file of text, or a folder that has such files")
    return np.concatenate(parts)


def _files(place: str) -> Iterator[Path]:
    """The files of a text, by name; hidden ones are left out, and of the standard library all but its sources."""
    top = Path(place or sysconfig.get_path("stdlib"))
    if not top.exists():
        raise UserError(
            f"{_name(place)} does not exist (looked in {Path.cwd()}): name a file of text, or a folder of such files"
        )
    if top.is_file():
        yield top
    left_out = set() if place else TESTS | INSTALLED
    for folder, folders, names in os.walk(top):
        folders[:] = sorted(name for name in folders if name not in left_out and not name.startswith("."))
        for name in sorted(names):
            source = name.endswith(".py") and not name.startswith(BUILD)
            if (source or place) and not name.startswith("."):
                yield Path(folder, name)


def _name(place: str) -> str:
    if place:
        return f"dataset.text = {place!r}"
    return f"the standard library in {sysconfig.get_path('stdlib')} (dataset.text is empty)"
