"""Deduplication: no sample is accepted twice, in bounded memory."""

from learner.deduplication import Deduplicator


def test_accepted_sample_and_all_before_it_are_duplicates():
    taken = Deduplicator()
    taken.accept("a", 3, version=0)
    assert [taken.is_duplicate("a", n) for n in (2, 3, 4)] == [True, True, False]
    assert not taken.is_duplicate("b", 0)


def test_evicted_worker_cannot_repeat_a_sample():
    """Three workers, a limit of two: the evicted one's last sample was accepted at version 5."""
    taken = Deduplicator(limit=2)
    for worker, version in (("a", 5), ("b", 6), ("c", 7)):
        taken.accept(worker, 0, version)
    assert not taken.is_duplicate("a", 0)
    assert [taken.may_be_duplicate("a", version) for version in (4, 5, 6)] == [True, True, False]
    assert not taken.may_be_duplicate("b", 0)


def test_full_evicts_the_worker_silent_longest():
    taken = Deduplicator(limit=2)
    taken.accept("a", 0, 1)
    taken.accept("b", 0, 2)
    taken.accept("a", 1, 3)
    taken.accept("c", 0, 4)
    assert taken.is_duplicate("a", 1) and not taken.is_duplicate("b", 0)
    assert taken.may_be_duplicate("b", 2) and not taken.may_be_duplicate("b", 3)


def test_many_workers_memory_is_bounded():
    taken = Deduplicator(limit=10)
    for k in range(1000):
        taken.accept(f"w{k}", 0, k)
    assert len(taken) == 10


def test_dump_loaded_again_knows_the_same():
    taken = Deduplicator(limit=2)
    for k in range(3):
        taken.accept(f"w{k}", k, k)
    again = Deduplicator.load(taken.dump(), limit=2)
    assert again.dump() == taken.dump()
    assert again.is_duplicate("w2", 2) and again.may_be_duplicate("w0", 0) and not again.may_be_duplicate("w0", 1)
    again.accept("w3", 0, 3)
    assert not again.is_duplicate("w1", 1)
