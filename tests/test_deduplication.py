from learner.deduplication import Ledger


def test_a_sample_and_all_before_it_are_known():
    ledger = Ledger()
    ledger.take("a", 3, version=0)
    assert [ledger.has("a", n) for n in (2, 3, 4)] == [True, True, False]
    assert not ledger.has("b", 0)


def test_what_was_forgotten_cannot_come_back():
    """Three workers, room for two: a's last sample was taken at version 5, so an unknown worker's must be newer."""
    ledger = Ledger(limit=2)
    for worker, version in (("a", 5), ("b", 6), ("c", 7)):
        ledger.take(worker, 0, version)
    assert not ledger.has("a", 0)
    assert [ledger.forgotten("a", version) for version in (4, 5, 6)] == [True, True, False]
    assert not ledger.forgotten("b", 0)


def test_the_one_that_was_silent_longest_is_forgotten():
    ledger = Ledger(limit=2)
    ledger.take("a", 0, 1)
    ledger.take("b", 0, 2)
    ledger.take("a", 1, 3)
    ledger.take("c", 0, 4)
    assert ledger.has("a", 1) and not ledger.has("b", 0)
    assert ledger.forgotten("b", 2) and not ledger.forgotten("b", 3)


def test_memory_is_bounded():
    ledger = Ledger(limit=10)
    for k in range(1000):
        ledger.take(f"w{k}", 0, k)
    assert len(ledger) == 10


def test_it_survives_a_checkpoint():
    ledger = Ledger(limit=2)
    for k in range(3):
        ledger.take(f"w{k}", k, k)
    again = Ledger.load(ledger.dump(), limit=2)
    assert again.dump() == ledger.dump()
    assert again.has("w2", 2) and again.forgotten("w0", 0) and not again.forgotten("w0", 1)
    again.take("w3", 0, 3)
    assert not again.has("w1", 1)
