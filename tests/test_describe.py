"""The record of an update: by hand numbers, and byte for byte the line that histories have always held."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from helpers.learner import SEGMENTS, SIZE, sample

from common import moments
from common.config import EstimatorConfig
from common.facts import Facts
from common.messages import GradientSample
from common.update_record import UNKNOWN, Staleness, UpdateRecord, Windows
from learner.describe import Stamp, describe
from learner.merge import Rule, merge
from learner.outer_optimizer import Step

RULE = Rule(EstimatorConfig(merge="coordinate"), SEGMENTS)
STEP = Step(np.full(SIZE, 2.0, np.float32), None, 3.0, 0.5, 0.25, False)
STAMP = Stamp(1, 8, 1.7e9 + 0.5, 12.25, {"accepted": 24, "stale": 1})
GOLDEN = Path(__file__).parent / "helpers" / "golden_history.jsonl"


def described(samples: list[GradientSample], step: Step = STEP, pairs: int = 1) -> UpdateRecord:
    return describe(STAMP, samples, RULE._replace(estimator=EstimatorConfig(pairs=pairs)), merge(samples, RULE), step)


def plain(worker: str, sequence: int, version: int, windows: tuple[int, ...], facts: Facts) -> GradientSample:
    """A sample without random numbers."""
    pairs = len(windows)
    grid = np.arange(SIZE * pairs).reshape(pairs, SIZE) / 8
    return sample(worker, sequence, pairs=pairs)._replace(
        version=version,
        windows=windows,
        loss_plus=tuple(1 + k / 4 for k in range(pairs)),
        loss_minus=tuple(2 + k / 8 for k in range(pairs)),
        rp=moments.of(grid * (1 + sequence) - worker.count("b")),
        es=moments.of(np.flip(grid) - sequence),
        facts=facts,
    )


def test_describe_known_batch_gives_the_golden_line() -> None:
    samples = [
        plain("a", 0, 6, (10, 20), Facts(inner_steps=60.0, finished=1.0)),
        plain("a", 1, 4, (30, 40), Facts(inner_steps=140.0, diverged=1.0)),
        plain("b", 0, 7, (50, 60), Facts(inner_steps=220.0, rp_clipped=2.0)),
    ]
    exploded = samples[1].rp._replace(mean=np.array([0.5, np.nan, 1, 2, 3, 4]))
    samples[1] = samples[1]._replace(rp=exploded)
    made = described(samples, STEP._replace(gradient_norm=math.inf), pairs=2)
    assert json.dumps(made.to_json(), allow_nan=False) + "\n" == GOLDEN.read_text()


def test_describe_counts_and_means_by_hand() -> None:
    samples = [
        sample("a", 0, version=7, windows=(10,), loss_plus=(1.0,), loss_minus=(2.0,), facts=Facts(inner_steps=20.0)),
        sample("a", 1, version=4, windows=(30,), loss_plus=(3.0,), loss_minus=(6.0,), facts=Facts(diverged=1.0)),
        sample("b", 0, version=7, windows=(50,), loss_plus=(5.0,), loss_minus=(1.0,), facts=Facts(finished=2.0)),
    ]
    samples[1] = samples[1]._replace(rp=moments.of(np.array([[0, 0, np.nan, 0, 0, 0]])))
    made = described(samples)
    assert (made.loss, made.loss_plus, made.loss_minus) == (3.0, 3.0, 3.0)
    assert (made.samples, made.workers_seen, made.rp_nonfinite) == (3, 2, 1)
    assert (made.inner_steps, made.diverged, made.finished) == (20, 1, 2)
    assert (made.windows, made.staleness) == (Windows(30.0, 10, 50), Staleness(1.0, 3))


def test_describe_weighs_pairs_alike_whoever_sent_them() -> None:
    samples = [
        sample(pairs=3, loss_plus=(1.0, 1.0, 1.0), loss_minus=(1.0, 1.0, 1.0)),
        sample("b", version=4, loss_plus=(5.0,), loss_minus=(5.0,)),
    ]
    made = described(samples)
    assert (made.loss, made.samples) == (2.0, 4)
    assert made.staleness == Staleness((3 * 7 + 3) / 4, 7)


def test_describe_step_by_hand() -> None:
    rows = np.random.default_rng(0).normal(size=(2, 4, SIZE))
    samples = [sample("a", k, rp=moments.of(rows[0, k : k + 1]), es=moments.of(rows[1, k : k + 1])) for k in range(4)]
    made, weight = described(samples), merge(samples, RULE).weight_rp
    for variance, own in ((made.var_rp, rows[0]), (made.var_es, rows[1])):
        assert variance.q25 == pytest.approx(np.quantile(own.var(axis=0, ddof=1), 0.25))
    assert made.weight_rp.mean == pytest.approx(weight.mean())
    assert made.weight_rp.quantiles.q95 == pytest.approx(np.quantile(weight, 0.95))
    assert (made.rp_pairs, made.es_pairs, made.rp_fallback) == (4, 4, 0)
    assert (made.norms.gradient, made.clipped, made.norms.update) == (3.0, 0.5, 0.25)
    assert made.norms.theta == pytest.approx(2 * SIZE**0.5)


def test_describe_unknown_variance_is_null() -> None:
    made = described([sample("a", 0, rp=moments.of(np.array([[np.nan, 1, 1, 1, 1, 1]])))])
    assert made.var_rp == UNKNOWN and made.rp_fallback == 1
    assert json.loads(json.dumps(made.to_json(), allow_nan=False))["var_rp"]["q50"] is None


def test_describe_infinite_variances_are_part_of_the_quantiles() -> None:
    """Two of six coordinates: the median is of all, the upper quantiles are infinite, and JSON holds them."""
    samples = [sample("a", k, rp=moments.of(np.array([[np.nan, np.inf, 1, 2, 3, 4]]) * (k + 1))) for k in range(2)]
    made = described(samples)
    assert made.var_rp == pytest.approx((0.875, 2.625, 6.25, math.inf, math.inf))
    assert made.var_rp_nonfinite == pytest.approx(1 / 3)
    line = json.loads(json.dumps(made.to_json(), allow_nan=False))
    assert (line["var_rp"]["q50"], line["var_rp"]["q95"]) == (pytest.approx(6.25), "inf")
    assert UpdateRecord.from_json(line) == made
