"""Random streams: each has draws of its own, and the frozen ones stay what data and results were made with."""

from itertools import combinations

import numpy as np
import pytest

from common import streams
from common.streams import STREAMS, Stream, generator, seed

NUMBERS = {  # what the callers give; a worker's number is a checksum
    streams.CLASS_SPLIT: [(s, n) for s in range(6) for n in range(3, 8)],
    streams.BACKGROUNDS: [(s,) for s in range(6)],
    streams.CANVASES: [(s, c) for s in range(6) for c in range(3)],
    streams.IMAGES: [(s, c, k) for s in range(6) for c in range(3) for k in range(3)],
    **{
        stream: [(s, w, i, n) for s in range(3) for w in (10**9, 10**9 + 1) for i in range(3) for n in range(1, 4)]
        for stream in (
            *(streams.PROBLEMS, streams.TRUNCATIONS, streams.STAGGER),
            *(streams.PROBES, streams.HORIZONS, streams.FAMILIES),
        )
    },
    streams.TEXT_SPLIT: [(s,) for s in range(6)],
    streams.EVALUATION_TASK: [(t, k) for t in range(6) for k in range(2)],
    streams.EVALUATION_START: [(t, k, i) for t in range(6) for k in range(2) for i in range(3)],
    streams.SEARCH: [(s,) for s in range(6)],
    streams.DIGITS: [(s,) for s in range(6)],
    streams.NEIGHBOURING_RATES: [(p,) for p in range(6)],
    streams.DIRECTION: [()],
    streams.PAIRS: [(t,) for t in range(6)],
    streams.RESAMPLING: [()],
}
# Seeds that one list of numbers gave to two things before streams had names. Each pair decides things of other kinds
# (images, which classes a task has, which settings are tried); the data and the results that exist depend on them.
SHARED = {
    frozenset(pair)
    for group in (
        (
            *(streams.BACKGROUNDS, streams.EVALUATION_TASK, streams.SEARCH, streams.DIGITS),
            *(streams.DIRECTION, streams.RESAMPLING),
        ),
        (streams.CANVASES, streams.EVALUATION_TASK),
        (streams.IMAGES, streams.NEIGHBOURING_RATES),
    )
    for pair in combinations(group, 2)
}


def states(stream: Stream) -> set[bytes]:
    """What the generators of a stream start from."""
    return {np.random.SeedSequence(seed(stream, *numbers)).generate_state(4).tobytes() for numbers in NUMBERS[stream]}


@pytest.mark.parametrize(("one", "other"), combinations(STREAMS, 2))
def test_streams_are_pairwise_distinct(one: Stream, other: Stream) -> None:
    assert states(one).isdisjoint(states(other)) != (frozenset((one, other)) in SHARED)


@pytest.mark.parametrize("stream", STREAMS, ids=lambda stream: stream.name)
def test_stream_of_other_numbers_has_other_draws(stream: Stream) -> None:
    assert len(states(stream)) == len(NUMBERS[stream])


def test_only_frozen_streams_share_seeds() -> None:
    assert all(stream.frozen is not None for pair in SHARED for stream in pair)


def test_frozen_streams_draw_what_they_always_drew() -> None:
    for stream, numbers, words in (
        (streams.CANVASES, (5, 7), [5, 1, 7]),
        (streams.TRUNCATIONS, (0, 9, 2, 3), [0, 9, 1, 2, 3]),
        (streams.EVALUATION_START, (4, 1, 2), [4, 1, 2, 1]),
        (streams.DIGITS, (6,), [6]),
    ):
        expected = np.random.default_rng(words).integers(2**32, size=4)
        np.testing.assert_array_equal(generator(stream, *numbers).integers(2**32, size=4), expected)


def test_names_tell_5_from_5_0() -> None:
    """NumPy's generator does not."""
    five, longer = (np.random.default_rng(seed).integers(2**32) for seed in (5, [5, 0]))
    assert five == longer
    draws = {generator(Stream(name, 1), 5).integers(2**32) for name in ("one", "other")}
    assert len(draws | {five}) == 3


def test_every_stream_is_listed_under_its_own_name() -> None:
    declared = {id(value) for value in vars(streams).values() if isinstance(value, Stream)}
    assert declared == {id(stream) for stream in STREAMS} and len({stream.name for stream in STREAMS}) == len(STREAMS)


@pytest.mark.parametrize("stream", [streams.CLASS_SPLIT, streams.PROBES])
def test_stream_of_another_count_of_numbers_is_an_error(stream: Stream) -> None:
    with pytest.raises(ValueError, match=f"{stream.name}.*not 3"):
        generator(stream, 1, 2, 3)
