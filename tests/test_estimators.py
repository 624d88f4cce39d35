"""Laws of the gradient estimators on the quadratic, whose expectations are known exactly (tests/helpers/closed_forms.py).

A statistical assertion is "within 4 standard errors". For a normal mean that is a false alarm in 6.3e-5 of all draws;
the seeds are fixed, so that the outcome is reproducible, and a correct program would fail one of all assertions
(about 40 coordinates) with probability 0.3 %.
"""

from collections import namedtuple

import numpy as np
import pytest
from helpers import closed_forms, tasks

from common import streams
from common.config import CurriculumConfig, EstimatorConfig, TaskConfig
from common.inverse_variance import inverse_variance
from common.moments import combine, empty, of, variance
from common.optimizer import make_family
from learner.merge import Both, Rule, merge
from workers.estimators import Perturbation, Truncation, antithetic_pair
from workers.trajectory import Sampler
from workers.unroll import OuterLoss, Unroll

THETA, SIGMA = np.array([0.15, 0.5]), 0.1
STEPS, TRUNCATIONS = 2, 3  # T, and truncations of one whole problem
LENGTH = STEPS * TRUNCATIONS
Sample = namedtuple("Sample", "rp es family")


def config(**estimator):
    task = TaskConfig(family="quadratic", options={"dimension": 2}, inner_steps=LENGTH)
    curriculum = CurriculumConfig(start=STEPS, end=STEPS, jitter=0.0, stagger=False)
    return tasks.config(task=task, curriculum=curriculum, estimator=EstimatorConfig(sigma=SIGMA, **estimator))


@pytest.fixture(scope="module")
def unroll():
    return Unroll(tasks.task("quadratic"), make_family(config().optimizer), OuterLoss(), 4)


def sampler(unroll, **estimator):
    return Sampler(config(**estimator), tasks.task("quadratic"), unroll, "a worker", 2)


@pytest.fixture(scope="module")
def last_unroll():
    return Unroll(tasks.task("quadratic"), make_family(config().optimizer), OuterLoss(reduction="last"), 4)


def truncation(trajectory, steps=STEPS):
    """The next steps of a trajectory, both branches from its + state."""
    return Truncation(trajectory.problem, trajectory.plus, trajectory.plus, steps)


def pair_of(unroll, noise, truncation, with_rp=True):
    return antithetic_pair(unroll, Perturbation(THETA, noise, SIGMA), truncation, with_rp=with_rp)


@pytest.fixture(scope="module")
def middle(unroll):
    """A trajectory after its first truncation: w has moved and the momentum is not zero."""
    return sampler(unroll).advance(sampler(unroll).begin(0, 1), THETA, 0, 0, with_rp=True)[1]


@pytest.fixture(scope="module")
def draws(unroll, middle):
    """Many independent pairs from that one incoming state: the noise is the sampler's own."""
    draw = sampler(unroll)
    return [draw.advance(middle, THETA, 0, sequence, with_rp=True)[0] for sequence in range(1, 1201)]


def assert_within_four_standard_errors(rows, expected):
    error = np.std(rows, axis=0, ddof=1) / np.sqrt(len(rows))
    assert np.all(np.abs(np.mean(rows, axis=0) - expected) < 4 * error), (np.mean(rows, axis=0), expected, error)
    assert np.all(error < 0.15 * np.abs(expected).max()), "too few draws for a conclusion"


@pytest.mark.heavy
@pytest.mark.parametrize("steps", [1, STEPS, 7])  # of a segment, and of more than one
def test_last_loss_and_its_gradient_equal_closed_form(last_unroll, middle, steps):
    start, noise = closed_forms.of(middle.problem, middle.plus), np.array([0.7, -1.3])
    pair = pair_of(last_unroll, noise, truncation(middle, steps))
    for sign, branch in ((1, pair.plus), (-1, pair.minus)):
        theta = THETA + sign * SIGMA * noise
        assert branch.loss == branch.last == pytest.approx(closed_forms.last(start, theta, steps), rel=1e-5)
        slopes = [closed_forms.last(start, theta + 1e-30j * axis, steps).imag / 1e-30 for axis in np.eye(2)]
        np.testing.assert_allclose(branch.gradient, slopes, rtol=1e-4)
    np.testing.assert_array_equal(pair.es, (pair.plus.loss - pair.minus.loss) * noise / (2 * SIGMA))


@pytest.mark.heavy
def test_last_loss_estimators_have_the_smoothed_gradient(last_unroll, middle):
    """Both expectations over the noise, by quadrature: exact up to the rounding of float32."""
    start, (points, weights) = closed_forms.of(middle.problem, middle.plus), closed_forms.nodes(2, 8)
    pairs = [pair_of(last_unroll, noise, truncation(middle)) for noise in points]
    losses = closed_forms.last(start, THETA + SIGMA * points, STEPS)
    smoothed = weights @ (losses[:, None] * points) / SIGMA
    for estimates in ([pair.rp for pair in pairs], [pair.es for pair in pairs]):
        np.testing.assert_allclose(weights @ np.array(estimates), smoothed, rtol=1e-3, atol=1e-4)


def test_pair_equals_equation_and_closed_form(unroll, middle):
    start, noise = closed_forms.of(middle.problem, middle.plus), np.array([0.7, -1.3])
    pair = pair_of(unroll, noise, truncation(middle))
    for sign, branch in ((1, pair.plus), (-1, pair.minus)):
        theta = THETA + sign * SIGMA * noise
        loss, end = closed_forms.unrolled(start, theta, STEPS)
        assert branch.loss == pytest.approx(loss, rel=1e-5)
        assert branch.last == pytest.approx(0.5 * np.sum(end.curvature * end.error**2), rel=1e-5)
        np.testing.assert_allclose(branch.gradient, closed_forms.gradient(start, theta, STEPS), rtol=1e-4)
        np.testing.assert_allclose(closed_forms.of(middle.problem, branch.state).error, end.error, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(pair.rp, np.mean([pair.plus.gradient, pair.minus.gradient], 0, np.float64))
    np.testing.assert_array_equal(pair.es, (pair.plus.loss - pair.minus.loss) * noise / (2 * SIGMA))


def test_both_estimators_integrate_to_smoothed_gradient(unroll, middle):
    """No statistics: the noise runs through the points of a quadrature that is exact for these polynomials."""
    points, weights = closed_forms.nodes(2, 6)
    pairs = [pair_of(unroll, n, truncation(middle)) for n in points]
    expected = closed_forms.smoothed_gradient(closed_forms.of(middle.problem, middle.plus), THETA, SIGMA, STEPS)
    np.testing.assert_allclose(weights @ [pair.rp for pair in pairs], expected, rtol=1e-4)
    np.testing.assert_allclose(weights @ [pair.es for pair in pairs], expected, rtol=1e-4)
    plain = closed_forms.gradient(closed_forms.of(middle.problem, middle.plus), THETA, STEPS)
    assert np.all(np.abs(plain / expected - 1) > 0.05)  # smoothing matters here, so that the test is conclusive


def test_both_estimators_given_the_state_are_unbiased(middle, draws):
    expected = closed_forms.smoothed_gradient(closed_forms.of(middle.problem, middle.plus), THETA, SIGMA, STEPS)
    assert_within_four_standard_errors([advance.pair.rp for advance in draws], expected)
    assert_within_four_standard_errors([advance.es for advance in draws], expected)


def true_variances(start):
    """Of one rp and one es, [2] each, and their fourth central moments, by quadrature."""
    n, weight = closed_forms.nodes(2, 20)
    plus, minus = THETA + SIGMA * n, THETA - SIGMA * n
    rp = (closed_forms.gradient(start, plus, STEPS) + closed_forms.gradient(start, minus, STEPS)) / 2
    losses = [closed_forms.unrolled(start, theta, STEPS)[0] for theta in (plus, minus)]
    es = (losses[0] - losses[1])[:, None] * n / (2 * SIGMA)
    return [(weight @ (x - weight @ x) ** 2, weight @ (x - weight @ x) ** 4) for x in (rp, es)]


def test_reported_variances_equal_sample_variances(middle, draws):
    rows = {"rp": np.array([a.pair.rp for a in draws]), "es": np.array([a.es for a in draws])}
    truth = dict(zip(("rp", "es"), true_variances(closed_forms.of(middle.problem, middle.plus))))
    for name, sample in rows.items():
        second, fourth = truth[name]
        reported = variance(of(sample))
        np.testing.assert_allclose(reported, np.var(sample, axis=0, ddof=1), rtol=1e-12)
        assert np.all(np.abs(reported - second) < 4 * np.sqrt((fourth - second**2) / len(sample)))


def test_merge_of_independent_estimators_is_harmonic(middle, draws):
    """rp of one pair and es of the next one, which are independent: the variance is 1 / (1 / var_rp + 1 / var_es)."""
    (var_rp, _), (var_es, _) = true_variances(closed_forms.of(middle.problem, middle.plus))
    weight = inverse_variance(var_rp, var_es)
    rp, es = (np.array(rows) for rows in ([a.pair.rp for a in draws[:-1]], [a.es for a in draws[1:]]))
    merged = weight * rp + (1 - weight) * es
    squares = (merged - merged.mean(0)) ** 2
    harmonic = 1 / (1 / var_rp + 1 / var_es)
    assert np.all(np.abs(squares.mean(0) - harmonic) < 4 * squares.std(0) / np.sqrt(len(squares)))
    assert np.all(harmonic < np.minimum(var_rp, var_es)) and np.all((weight > 0) & (weight < 1))
    expected = closed_forms.smoothed_gradient(closed_forms.of(middle.problem, middle.plus), THETA, SIGMA, STEPS)
    assert_within_four_standard_errors(merged, expected)


def whole_problems(unroll, count, with_rp, **estimator):
    """Sums of both estimators over all truncations of one problem, many times from its start at a fixed theta."""
    draw = sampler(unroll, **estimator)
    first, es, rp = draw.begin(0, 1), [], []
    for i in range(count):
        trajectory, advances = first, []
        for k in range(TRUNCATIONS):
            advance, trajectory = draw.advance(trajectory, THETA, 0, i * TRUNCATIONS + k, with_rp=with_rp)
            advances.append(advance)
        assert advances[-1].finished and not any(a.finished for a in advances[:-1])
        es.append(sum(a.es for a in advances))
        rp.append(sum(a.rp for a in advances) if with_rp else 0)
    return closed_forms.of(first.problem, first.plus), np.array(es), np.array(rp)


@pytest.mark.heavy
def test_sum_over_carried_truncations_has_the_known_bias(unroll):
    start, es, rp = whole_problems(unroll, 500, True)
    noise, losses, weight = closed_forms.truncated_path(start, THETA, SIGMA, STEPS, TRUNCATIONS)
    before = np.cumsum(noise, axis=0) - noise  # of the earlier truncations, whose effect no truncation sees
    bias = -np.einsum("n,kn,knp->p", weight, losses, before) / SIGMA / TRUNCATIONS
    whole = np.einsum("n,kn,knp->p", weight, losses, before + noise) / SIGMA / TRUNCATIONS
    for rows in (es / TRUNCATIONS, rp / TRUNCATIONS):
        assert_within_four_standard_errors(rows - whole, bias)
    error = np.std(rp / TRUNCATIONS, axis=0) / np.sqrt(len(rp))
    assert np.all(np.abs(bias) > [20, 10] * error)  # significant


@pytest.mark.heavy
def test_persistent_es_is_unbiased_for_the_whole_problem(unroll):
    start, es, _ = whole_problems(unroll, 800, False, es="persistent", use="es")
    noise, losses, weight = closed_forms.truncated_path(start, THETA, SIGMA, STEPS, TRUNCATIONS)
    total = np.einsum("n,kn,knp->p", weight, losses, np.cumsum(noise, axis=0)) / SIGMA / TRUNCATIONS
    assert_within_four_standard_errors(es, total)


@pytest.mark.heavy
@pytest.mark.parametrize("reach", [0, 1, TRUNCATIONS - 1])
def test_persistent_rp_and_its_merge_are_unbiased(unroll, reach):
    """With a weight that does not depend on the draws; the farther rp reaches, the less noise is left."""
    start, es, rp = whole_problems(unroll, 300, True, es="persistent", reach=reach)
    noise, losses, weight = closed_forms.truncated_path(start, THETA, SIGMA, STEPS, TRUNCATIONS)
    total = np.einsum("n,kn,knp->p", weight, losses, np.cumsum(noise, axis=0)) / SIGMA / TRUNCATIONS
    assert_within_four_standard_errors(rp, total)
    assert_within_four_standard_errors(0.9 * rp + 0.1 * es, total)
    assert np.all(rp.var(axis=0) < [0.5, 0.2, 0.1][reach] * es.var(axis=0))


def test_persistent_merge_by_earlier_batches_is_unbiased(unroll):
    """As the learner does it: two trajectories, a batch of both's next truncations, weights of the batches before it."""
    draw, rule = sampler(unroll, es="persistent"), Rule(EstimatorConfig(es="persistent"), np.zeros(2, int))
    past, rows = Both(empty(2), empty(2)), []
    first = draw.begin(0, 1)
    for i in range(150):
        trajectories, gradients = [first, first], []
        for k in range(TRUNCATIONS):
            batch = []
            for j in (0, 1):
                sequence = (2 * i + j) * TRUNCATIONS + k
                advance, trajectories[j] = draw.advance(trajectories[j], THETA, 0, sequence, with_rp=True)
                batch.append(Sample(of(advance.rp[None]), of(advance.es[None]), ""))
            merged = merge(batch, rule, past=past)
            gradients.append(merged.gradient)
            past = Both(combine(past.rp, merged.rp), combine(past.es, merged.es))
        rows.append(sum(gradients))
    start = closed_forms.of(first.problem, first.plus)
    noise, losses, weight = closed_forms.truncated_path(start, THETA, SIGMA, STEPS, TRUNCATIONS)
    total = np.einsum("n,kn,knp->p", weight, losses, np.cumsum(noise, axis=0)) / SIGMA / TRUNCATIONS
    assert_within_four_standard_errors(rows, total)
    assert 0.5 < merged.weight_rp[0] < 1


@pytest.mark.parametrize("reach", [0, 1, TRUNCATIONS - 1])
def test_persistent_rp_is_the_derivative_through_its_reach(unroll, reach):
    draw, noise, advances = sampler(unroll, es="persistent", reach=reach), [], []
    trajectory = first = draw.begin(0, 1)
    for sequence in range(TRUNCATIONS):
        advance, trajectory = draw.advance(trajectory, THETA, 0, sequence, with_rp=True)
        advances.append(advance)
        noise.append(draw.random(0, sequence, streams.TRUNCATIONS).standard_normal(2))
    start, noise = closed_forms.of(first.problem, first.plus), np.array(noise)
    plus, minus = THETA + SIGMA * noise, THETA - SIGMA * noise
    derivative = sum(closed_forms.carried_gradient(start, thetas, STEPS, reach) for thetas in (plus, minus)) / 2
    pair = advances[-1].pair
    older = (pair.plus.loss - pair.minus.loss) * noise[: TRUNCATIONS - 1 - reach].sum(axis=0) / (2 * SIGMA)
    np.testing.assert_allclose(advances[-1].rp, (derivative + older) / TRUNCATIONS, rtol=1e-4)


@pytest.mark.heavy
def test_noise_reuse_es_is_unbiased_for_the_whole_problem(unroll):
    start, es, _ = whole_problems(unroll, 800, False, es="noise_reuse", use="es")
    assert_within_four_standard_errors(es, closed_forms.smoothed_gradient(start, THETA, SIGMA, LENGTH))


def test_rp_without_noise_is_truncated_backpropagation(unroll, middle):
    pair = antithetic_pair(unroll, Perturbation(THETA, np.ones(2), 0.0), truncation(middle), with_rp=True)
    start = closed_forms.of(middle.problem, middle.plus)
    np.testing.assert_allclose(pair.rp, closed_forms.gradient(start, THETA, STEPS), rtol=1e-4)
    assert pair.es is None and pair.plus is pair.minus


def test_skipping_rp_leaves_losses_and_es_unchanged(unroll, middle):
    arguments = (unroll, np.array([0.3, 1.0]), truncation(middle))
    whole, skipped = pair_of(*arguments), pair_of(*arguments, with_rp=False)
    assert skipped.rp is None and skipped.plus.gradient is None
    np.testing.assert_array_equal(skipped.es, whole.es)
    assert (skipped.plus.loss, skipped.minus.last) == (whole.plus.loss, whole.minus.last)


def test_pair_branches_start_from_their_own_states(unroll, middle):
    first = sampler(unroll).begin(0, 1)
    pair = pair_of(unroll, np.ones(2), truncation(middle)._replace(minus=first.minus), with_rp=False)
    for branch, sign, state in ((pair.plus, 1, middle.plus), (pair.minus, -1, first.minus)):
        loss, _ = closed_forms.unrolled(closed_forms.of(middle.problem, state), THETA + sign * SIGMA, STEPS)
        assert branch.loss == pytest.approx(loss, rel=1e-5)


def test_es_stays_bounded_where_rp_explodes(unroll, middle):
    """At a rate at which this quadratic diverges rp may be anything; es is bounded by the clamp."""
    perturbation = Perturbation(np.array([1e6, 0.0]), np.array([-9.0, 0.5]), SIGMA)
    pair = antithetic_pair(unroll, perturbation, truncation(middle, 4), with_rp=True)
    assert np.all(np.isfinite(pair.es)) and np.all(np.abs(pair.es) <= 10 * 9.0 / (2 * SIGMA))
    assert pair.plus.loss == pair.minus.loss == 10.0
