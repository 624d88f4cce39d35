"""The figure of staleness: what its outcome says, and its trainings."""

import numpy as np
import pytest
from helpers.figures import result

from common.configfile import load
from workers.figures import staleness
from workers.figures.staleness import Training

WOBBLE = (-0.02, -0.01, 0.0, 0.01, 0.02)  # of the seeds


def results(**cost):
    """Trainings that learn from 2.3 to 1.3; `cost` by number of workers."""
    cases = {"w1": (1, "", 0.0), "w8": (8, "", 0.875), "w64": (64, "", 7.9), "limit": (64, "limit 4", 3.0)}
    return [
        result(
            Training,
            workers=workers,
            remedy=remedy,
            seed=seed,
            kept=[0, 100],
            losses=[[2.3], [1.3 + cost.get(name, 0.0) + wobble * (0.1 if name == "w1" else 0.3)]],
            staleness=old,
            samples=1300 if remedy else 800,
        )
        for name, (workers, remedy, old) in cases.items()
        for seed, wobble in enumerate(WOBBLE)
    ]


def test_outcome_judges_the_samples_one_update_old():
    assert staleness.outcome(results(w64=0.8)).holds is True
    assert staleness.outcome(results(w8=0.3)).holds is False
    assert staleness.outcome(results(w8=0.1)).holds is None


def test_outcome_names_every_case():
    sentence = staleness.outcome(results(w64=0.5)).sentence
    assert "64 workers, 7.9 updates old, 800 samples computed: 0.5" in sentence
    assert "64 workers with limit 4, 3 updates old, 1300 samples computed: " in sentence


def test_costs_are_paired_over_seeds():
    gap = staleness.costs(results(w8=0.1))[8, ""]
    differences = 0.1 + 0.2 * np.array(WOBBLE)
    assert gap.value == pytest.approx(differences.mean()) and gap.high - gap.low == pytest.approx(
        2 * 2.776 * differences.std(ddof=1) / np.sqrt(5), rel=1e-3
    )


def test_trainings_of_a_seed_differ_in_workers_or_remedy_only():
    jobs = [job for job in staleness.jobs("mini", []) if job.seed == 3]
    configs = [load(job.settings[0], job.settings[1:]) for job in jobs]
    assert [config.workers.count for config in configs] == [1, 4, 8, 16, 64, 64, 64]
    assert {config.outer.batch_samples for config in configs} == {8} and {config.seed for config in configs} == {3}
    assert [config.outer.max_staleness for config in configs] == [-1] * 5 + [4, -1]
    assert configs[-1].outer.learning_rate == configs[0].outer.learning_rate / 2
