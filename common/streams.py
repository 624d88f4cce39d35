"""Every stream of NumPy's random numbers, by name: no two things are decided by the same draws.

A seed of NumPy is a list of numbers, and [5] and [5, 0] are the same seed. The seed of a stream therefore begins with
128 bits of the hash of its name. Frozen streams are older: data, tasks and trajectories that exist depend on their
lists, so these stay as they are; do not add to them. JAX's keys (weights, minibatches) are drawn from these streams, or
are `jax.random.key(seed)` for the initial theta.
"""

import hashlib
from typing import NamedTuple

import numpy as np

N = -1  # in a frozen list: a number of the caller


class Stream(NamedTuple):
    """What random numbers are for."""

    name: str
    numbers: int  # how many the caller gives
    frozen: tuple[int, ...] | None = None  # the list that is the seed


def _frozen(name: str, *words: int) -> Stream:
    return Stream(name, words.count(N), words)


# data: they decide the fingerprint of a dataset
CLASS_SPLIT = _frozen("class split", N, N)  # dataset's seed, number of classes (3 or more)
BACKGROUNDS = _frozen("backgrounds", N, 0)  # dataset's seed
CANVASES = _frozen("canvases", N, 1, N)  # dataset's seed, class
IMAGES = _frozen("images", N, 2, N, N)  # dataset's seed, class, split
# training: seed, worker, slot, number; checkpoints resume their trajectories by them
PROBLEMS = _frozen("problems", N, N, 0, N, N)  # number of the inner problem, from 1
TRUNCATIONS = _frozen("truncations", N, N, 1, N, N)  # number of the sample
STAGGER = _frozen("stagger", N, N, 2, N, N)
PROBES = Stream("probes", 4)  # whether the sample computes rp
HORIZONS = Stream("horizons", 4)  # steps of the inner problem, where they are drawn
FAMILIES = Stream("families", 4)  # of which family of a mixture the sample is
TEXT_SPLIT = Stream("text split", 1)  # dataset's seed
# evaluation and figures
EVALUATION_TASK = _frozen("evaluation task", N, N)  # task, outer split (0 or 1)
EVALUATION_START = _frozen("evaluation start", N, N, N, 1)  # task, outer split, initialisation
SEARCH = _frozen("search", N)  # seed of the plan
DIGITS = _frozen("digits", N)  # seed
NEIGHBOURING_RATES = _frozen("neighbouring rates", N, 2)  # problem (figure 2)
DIRECTION = _frozen("direction", 0)  # in theta (figure 3)
PAIRS = Stream("pairs", 1)  # window (figure 4)
RESAMPLING = _frozen("resampling", 0)  # of a bootstrap

STREAMS = (
    *(CLASS_SPLIT, BACKGROUNDS, CANVASES, IMAGES, TEXT_SPLIT),
    *(PROBLEMS, TRUNCATIONS, STAGGER, PROBES, HORIZONS, FAMILIES),
    *(EVALUATION_TASK, EVALUATION_START, SEARCH, DIGITS, NEIGHBOURING_RATES, DIRECTION, PAIRS, RESAMPLING),
)


def generator(stream: Stream, *numbers: int) -> np.random.Generator:
    """A new generator of `stream`; equal numbers give equal draws."""
    return np.random.default_rng(seed(stream, *numbers))


def seed(stream: Stream, *numbers: int) -> list[int]:
    """The seed of `generator`.

    Raises:
      ValueError: the stream takes another count of numbers.
    """
    if len(numbers) != stream.numbers:
        raise ValueError(f"the stream {stream.name!r} takes {stream.numbers} numbers, not {len(numbers)}")
    if stream.frozen is None:
        return [int.from_bytes(hashlib.sha256(stream.name.encode()).digest()[:16], "big"), *numbers]
    given = iter(numbers)
    return [next(given) if word == N else word for word in stream.frozen]
