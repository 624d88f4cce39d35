"""Figure 4: the ratio of variances, and what counts as growth."""

from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
from helpers.figures import result

from common.configfile import load
from common.optimizer import initial_theta
from workers.evaluation.jobs import decode, encode
from workers.figures import batches, fig4, fig5
from workers.figures.fig4 import Pairs
from workers.figures.pictures.fig4 import draw


def training(rp, es):
    bands = {"var_rp": [[0, v, 0] for v in rp], "var_es": [[0, v, 0] for v in es]}
    return result(fig5.Training, objective="train", **bands)


JOB = fig4.PairsJob(label="a", when="trained", window=5, pairs=16, theta="")


def results(first, last, starts=5):
    trainings = [training([10.0**first] * 10 + [10.0**last] * 10, [1.0] * 20) for _ in range(starts)]
    pairs = [
        result(Pairs, when="trained", window=w, log_ratio=(r, r - 0.5, r + 0.5)) for w, r in ((5, -4.0), (300, 6.0))
    ]
    return [*trainings, *pairs]


def test_pairs_have_the_outer_batches_of_the_training():
    unroll = fig4.unroll_of(("mini", "estimator.outer_batches=3"))
    assert unroll.outer_loss.outer_batches == 3


def test_log_ratio_is_the_median_over_coordinates():
    random = np.random.default_rng(0)
    scale = np.array([[1e3] * 5, [1.0] * 5])  # rp is a thousand times wider
    assert fig4.log_ratio(random.normal(size=(2000, 2, 5)) * scale) == pytest.approx(6, abs=0.1)


def test_growth_compares_the_ends_of_a_training():
    first, last = fig4.growth(training([10.0**k for k in range(20)], [100.0] * 20))
    assert first == pytest.approx(-1.5) and last == pytest.approx(16.5)
    gaps = fig4.growth(training([10.0**k for k in range(20)] + [np.nan] * 10, [100.0] * 30))  # without rp at the end
    assert gaps == pytest.approx((first, last))


@pytest.mark.parametrize("first, last, holds", [(-4, 3, True), (-4, -1, False), (1, 3, False)])
def test_outcome_holds_if_rp_grows_past_es(first, last, holds):
    assert fig4.outcome(results(first, last)).holds is holds
    assert fig4.outcome(results(first, last, starts=4)).holds is None


def test_outcome_with_infinite_variances_is_decided():
    assert fig4.outcome(results(-4, np.inf)).holds is True


def test_outcome_has_the_ratios_at_both_ends_of_the_windows():
    assert "10^-4.0 (-4.5 to -3.5) times at T = 5, 10^6.0" in fig4.outcome(results(-4, 3)).sentence


def test_outcome_says_where_rp_is_not_finite():
    told = [replace(one, rp_nonfinite=0.25) if isinstance(one, Pairs) else one for one in results(-4, 3)]
    assert "10^6.0 (5.5 to 6.5, rp not finite in 25% of the coordinates) at T = 300" in fig4.outcome(told).sentence
    assert "not finite" not in fig4.outcome(results(-4, 3)).sentence


def test_longer_steps_triple_both_outputs_and_nothing_else():
    config = load("mini", ["optimizer.hidden=3"])
    theta = np.random.default_rng(0).normal(size=len(initial_theta(config))).astype(np.float32)
    longer = decode(fig4.longer_steps(encode(theta), config))
    np.testing.assert_array_equal(longer[:-8], theta[:-8])
    np.testing.assert_array_equal(longer[-8:], 3 * theta[-8:])  # output kernel [3, 2] and bias [2]


def test_one_infinite_rp_makes_variances_infinite():
    """One of 16 pairs explodes in two of five coordinates: the others keep their variance, 10^6 times that of es."""
    random = np.random.default_rng(0)
    pairs = random.normal(size=(16, 2, 5)) * np.array([[1e3] * 5, [1.0] * 5])
    calm = fig4.described(JOB, pairs)
    pairs[3, 0, :2] = np.inf, np.nan
    made = fig4.described(JOB, pairs)
    assert made.rp[3:] == ["inf", "inf"] and float(made.rp[2]) < 1e8 and made.es == calm.es
    assert (calm.rp_nonfinite, made.rp_nonfinite) == (0.0, 0.4)
    assert float(made.log_ratio[0]) < 8 and float(made.log_ratio[1]) < float(made.log_ratio[2])
    pairs[:, 0] = np.inf
    exploded = fig4.described(JOB, pairs)
    assert exploded.log_ratio[0] == "inf" and "10^inf" in fig4.outcome([*results(-4, 3)[:2], exploded]).sentence


def test_draw_infinite_variances_leaves_a_picture():
    one = result(Pairs, when="trained", window=5, log_ratio=(1, 0, "inf"), rp=[1, 2, 3, 4, "inf"], es=[1, 1, 1, 1, 1])
    figure = draw(
        [
            replace(training([1.0, float("inf")], [1.0, 1.0]), versions=[1, 2]),
            *[replace(one, window=w) for w in (5, 10)],
        ]
    )
    figure.savefig(BytesIO(), format="png")
    shown = [axes for axes in figure.axes if axes.get_visible()]
    assert shown and all(axes.has_data() for axes in shown)
    assert all(np.isfinite([*axes.get_xlim(), *axes.get_ylim()]).all() for axes in shown)


def test_draw_marks_an_infinite_median_at_the_upper_edge():
    one = result(Pairs, when="trained", window=5, log_ratio=(1, 0, 2), rp=[1, 2, 3, 4, 5], es=[1, 1, 1, 1, 1])
    exploded = replace(one, window=10, rp=[1, 2, "inf", "inf", "inf"])
    axes = draw([replace(training([1.0, 2.0], [1.0, 1.0]), versions=[1, 2]), one, exploded]).axes[1]
    marks = [line for line in axes.get_lines() if line.get_marker() == "^"]
    assert [(line.get_xdata()[0], line.get_ydata()[0]) for line in marks] == [(10, 0.97)]


def batches_of(rp_scale, es_scale, draws=400):
    random = np.random.default_rng(3)
    return random.normal(size=(draws, 8, 2, 5)) * np.array([[rp_scale] * 5, [es_scale] * 5])


@pytest.mark.parametrize("rp, es", [(1e-3, 1.0), (1e9, 1.0)])
def test_merged_batches_have_the_lower_of_the_variances(rp, es):
    assert batches.log_ratio(batches_of(rp, es)) == pytest.approx(0, abs=1e-3)


def test_merged_batches_of_equal_variances_have_half_of_it():
    assert batches.log_ratio(batches_of(1.0, 1.0)) == pytest.approx(np.log10(0.5), abs=0.06)


def test_merged_batches_leave_out_an_rp_that_is_not_finite():
    exploded = batches_of(1.0, 1.0)
    exploded[:, 0, 0, 0] = np.nan
    assert batches.log_ratio(exploded) == 0.0 and batches.weight_rp(exploded[0]) == 0.0


def test_merge_of_a_batch_is_equation_1_by_hand():
    """One coordinate: rp 1 and 3 (variance 2), es 2 and 8 (variance 18), so rp has the weight 18 / 20."""
    merged, rp, es = batches.merge(np.array([[[1.0], [2.0]], [[3.0], [8.0]]]))[:, 0]
    assert (rp, es, merged) == (2.0, 5.0, pytest.approx(2.3))


def test_outcome_needs_an_es_that_stays_as_it_is():
    steady = results(-4, 3)
    assert fig4.outcome(steady).holds is True
    grown = [training([1e-4] * 10 + [1e6] * 10, [1.0] * 10 + [1e3] * 10) for _ in range(5)] + steady[5:]
    assert fig4.outcome(grown).holds is False
