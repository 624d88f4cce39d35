"""What all figures share: items and their names, intervals, the catalogue, digits; and each figure, run tiny."""

import json
from itertools import pairwise

import numpy as np
import pytest
from helpers import run_files
from helpers.tasks import TINY

from common.configfile import load
from common.errors import UserError
from common.optimizer import initial_theta
from workers.evaluation.jobs import decode, encode
from workers.evaluation.search import Plan, Rung
from workers.figures import catalogue, digits, fig2, fig3, fig4, fig5, fig6, fig7, fig8, probing, statistics
from workers.figures.figure import Trained, item, rounded, row


def train(config, keep):
    """As if trained: theta walks at random."""
    random, theta = np.random.default_rng(config.seed), initial_theta(config)
    kept = {v: (theta + 0.01 * v * random.normal(size=len(theta))).astype(np.float32) for v in keep}
    history = run_files.history(config.outer.updates)
    return Trained(kept[max(kept)], kept, history)


def complete(name, rows):
    """All rows of a figure, computed stage by stage as the driver does it."""
    mine = []
    while True:
        known = {r["item"] for r in mine}
        missing = [one for one in catalogue.items(name, "mini", rows + mine) if one["item"] not in known]
        if not missing:
            return mine
        mine += [json.loads(json.dumps(catalogue.perform(json.loads(json.dumps(one)), train))) for one in missing]


@pytest.fixture
def tiny(monkeypatch):
    """Scales of a few seconds."""
    grid = {"points": 3, "width": 0.1, "steps": [2, 6], "problems": 2}
    monkeypatch.setattr(fig2, "TOY", {**fig2.TOY, "momenta": 61, "drawn": 5, "steps": [5, 50]})
    monkeypatch.setattr(fig2, "ADAM", {**fig2.ADAM, "rates": 5, "steps": 8, "problems": 3})
    scales = {
        fig2: {"mlp": TINY, "slice": grid, "plane": grid},
        fig3: {
            **fig3.SCALES["mini"],
            "base": (*TINY, *fig3.PLAIN, "optimizer.family=adam", "optimizer.hidden=32"),
            "windows": [2, 6],
            "total": 200,
            "seeds": 2,
            "gradients": [2],
            "problems": 2,
            "rates": [0.001, 0.01],
        },
        fig4: {"windows": [2, 6], "pairs": 3},
        fig5: {"base": TINY, "seeds": 2, "points": 2, "tasks": 2},
        fig6: {"base": TINY, "tasks": 2, "starts": 2, "plan": Plan(3, (Rung(1, 1), Rung(1, 1)))},
        fig7: {"base": TINY, "digits": ("task.units=[3]",), "problems": 1, "starts": 2, "elsewhere": {"same": ()}},
        fig8: {**fig8.SCALES["mini"], "base": TINY, "windows": [2, 6], "growing": (2, 4), "budget": 600, "tasks": 2},
        probing: {"base": TINY, "seeds": 2, "points": 2, "tasks": 2},
    }
    for module, scale in scales.items():
        monkeypatch.setitem(module.SCALES, "mini", scale)


@pytest.mark.slow
def test_every_figure_runs_from_items_to_a_picture_and_a_sentence(tiny, tmp_path):
    rows = []
    for name in catalogue.order(catalogue.NAMES):
        mine = complete(name, rows)
        assert {r["figure"] for r in mine} == {name}
        assert len({r["item"] for r in mine}) == len(mine)
        rows += mine
    for name in catalogue.NAMES:
        verdict = catalogue.verdict(name, rows)
        assert len(verdict.sentence) > 80 and "nan" not in verdict.sentence
        figure = catalogue.draw(name, rows)
        assert all(axes.has_data() and axes.get_xlabel() for axes in figure.axes)
        figure.savefig(tmp_path / f"{name}.png")
        assert (tmp_path / f"{name}.png").stat().st_size > 10_000


@pytest.mark.parametrize("name", catalogue.NAMES)
def test_paper_scale_names_its_first_items(name):
    rows = []
    for needed in catalogue.needs(name):
        assert catalogue.items(needed, "paper", rows)
    listed = catalogue.items(name, "paper", rows)
    assert bool(listed) == (name not in {"fig4", "fig7"})  # all that these two do needs a theta that fig5 learned
    assert len({one["item"] for one in listed}) == len(listed)


def test_unknown_names_are_refused():
    with pytest.raises(UserError, match="no figure 'fig9'"):
        catalogue.items("fig9", "mini", [])
    with pytest.raises(UserError, match="no scale 'huge'"):
        catalogue.items("fig2", "huge", [])


def test_what_a_figure_needs_comes_before_it():
    assert catalogue.order(["fig6", "fig3"]) == ["fig5", "fig6", "fig3"]
    names = catalogue.order(catalogue.NAMES)
    assert sorted(names) == sorted(catalogue.NAMES)
    assert all(names.index(n) < names.index(name) for name in names for n in catalogue.needs(name))


def test_a_name_holds_all_that_decides_the_result():
    one = item("fig9", "kind", "label", TINY, task=1)
    assert item("fig9", "kind", "label", TINY, task=1)["item"] == one["item"]
    assert one["item"].startswith("fig9-label-")
    others = [item("fig9", "kind", "label", TINY, task=2), item("fig9", "kind", "label", (*TINY, "seed=1"), task=1)]
    others.append(item("fig9", "other", "label", TINY, task=1))
    assert len({one["item"], *(o["item"] for o in others)}) == 4
    kept = item("fig9", "kind", "label", (*TINY, "outer.keep_every=5", "metrics.port=9"), task=1)
    assert kept["item"] == one["item"]  # what is kept and shown decides nothing


def test_rows_leave_out_theta_and_numbers_are_short():
    assert row({"item": "a", "theta": "long"}, loss=1) == {"item": "a", "loss": 1}
    assert rounded({"a": [np.float32(1 / 3), 2]}, 3) == {"a": [0.333, 2.0]}
    assert rounded(np.array([123456.0])) == [123460.0]


def test_bootstrap_covers_the_mean_as_often_as_it_says():
    random, covered = np.random.default_rng(0), 0
    for _ in range(60):
        interval = statistics.bootstrap(random.normal(1.0, 2.0, 30))
        assert interval.low <= interval.value <= interval.high
        covered += interval.low < 1.0 < interval.high
    assert covered >= 51  # of 60, at 95 %: fewer in one of a thousand such tests


def test_difference_of_two_sets_has_the_sign_of_the_means():
    gap = statistics.difference(np.array([3.0, 3.1, 2.9]), np.array([1.0, 1.1, 0.9]))
    assert gap.value == pytest.approx(2.0) and 1.8 < gap.low < gap.high < 2.2
    assert str(gap).startswith("2 (")


def test_sign_test_by_hand():
    assert statistics.sign_test(5, 5) == pytest.approx(2 / 32)
    assert statistics.sign_test(0, 5) == statistics.sign_test(5, 5)
    assert statistics.sign_test(3, 6) == 1.0


def test_digits_are_ten_classes_without_overlap():
    data = digits.Digits(28)
    assert data.image_shape == (28, 28, 1)
    whole = [np.concatenate([data.images(d, s) for s in digits.SHARES]) for d in range(10)]
    assert sum(map(len, whole)) == 1797
    assert all(len(np.unique(images.reshape(len(images), -1), axis=0)) == len(images) for images in whole)
    assert data.max_count("train") == max(len(data.images(d, "train")) for d in range(10))


def test_enlarging_keeps_corners_and_interpolates_between():
    image = np.array([[[0.0, 100.0], [100.0, 200.0]]])
    big = digits.enlarge(image, 4)[0, :, :, 0]
    assert big[0, 0] == 0 and big[-1, -1] == 200 and (big == big.T).all()
    assert all(a <= b for a, b in pairwise(big[1])) and big[1, 1] == 50


def test_the_toy_is_the_papers():
    verdict = fig2.verdict([*toy_rows(), *adam_rows(2.0)])
    assert verdict.holds and "5 steps" in verdict.sentence
    assert not fig2.verdict([*toy_rows(), *adam_rows(0.5)]).holds
    final = toy_rows()[0]["final"]
    assert min(final[-1]) == pytest.approx(-3.1, abs=0.1)  # the deeper minimum, near 3.57
    assert final[-1][0] == pytest.approx(0, abs=1e-3)  # without momentum it stays in the first


def toy_rows():
    return [fig2.perform(item("fig2", "toy", "momentum", rate=fig2.RATE, **fig2.TOY), train)]


def adam_rows(growth):
    return [{"figure": "fig2", "kind": "adam", "spread": [growth ** (t / 5) for t in range(41)]} for _ in range(3)]


def test_roughness_is_one_for_a_step_and_small_for_a_line():
    assert fig2.roughness(np.linspace(0, 5, 101)) == pytest.approx(0.01)
    assert fig2.roughness([0, 0, 3, 3]) == 1.0


def bias_rows(short, long):
    def trained(window, rate, seed):
        return {"figure": "fig3", "kind": "train", "window": window, "seed": seed, "rates": [rate] * 20}

    rows = [trained(w, rate, seed) for seed in range(2) for w, rate in ((10, short), (100, long))]
    rows.append({"figure": "fig3", "kind": "rates", "rates": [0.001, 0.01, 0.1], "losses": [2.0, 1.0, 3.0]})
    for window, slope in ((10, 1.0), (100, -1.0)):
        more = {"window": window, "problem": 0, "rate": 0.005, "gradients": [slope]}
        rows.append({"figure": "fig3", "kind": "gradient", **more})
    return rows


def test_bias_holds_only_if_short_moves_away_and_long_does_not():
    assert fig3.verdict(bias_rows(short=0.001, long=0.009)).holds
    assert not fig3.verdict(bias_rows(short=0.009, long=0.001)).holds
    assert not fig3.verdict(bias_rows(short=0.006, long=0.009)).holds
    assert fig3.best_rate(bias_rows(0.001, 0.009))[0] == 0.01
    assert fig3.loss_at(bias_rows(0.001, 0.009), 0.1**2.5).tolist() == pytest.approx([1.5])
    assert fig3.gradient_sums(bias_rows(0.001, 0.009), 100).tolist() == [-1.0]


def test_windows_share_one_budget():
    for one in fig3.items("mini", []):
        if one["kind"] == "train":
            config = load(one["settings"][0], one["settings"][1:])
            steps = config.outer.updates * config.outer.batch_samples * config.curriculum.end
            assert steps == pytest.approx(fig3.SCALES["mini"]["total"], rel=0.05)
    for one in fig8.items("mini", []):
        config = load(one["settings"][0], one["settings"][1:])
        mean = (config.curriculum.start + config.curriculum.end) / 2
        assert config.outer.updates * config.outer.batch_samples * mean == pytest.approx(
            fig8.SCALES["mini"]["budget"], rel=0.05
        )


def test_the_ratio_of_variances_is_the_median_over_coordinates():
    random = np.random.default_rng(0)
    scale = np.array([[1e3] * 5, [1.0] * 5])  # rp is a thousand times wider
    assert fig4.log_ratio(random.normal(size=(2000, 2, 5)) * scale) == pytest.approx(6, abs=0.1)


def test_growth_compares_the_ends_of_a_training():
    bands = {"var_rp": [[0, 10.0**k, 0] for k in range(20)], "var_es": [[0, 100.0, 0]] * 20}
    first, last = fig4.growth(bands)
    assert first == pytest.approx(-1.5) and last == pytest.approx(16.5)


def ablation_rows(**means):
    base = {"merged": 1.0, "rp only": 2.0, "es only": 1.5, "window 6": 1.4, "no momentum": 1.9, "no time": 1.05}
    wobble = {"merged": 0.01, "rp only": 0.2, "es only": 0.1}
    return [
        {
            "figure": "fig8",
            "kind": "train",
            "variant": name,
            "seed": k,
            "losses": [[mean + wobble.get(name, 0.02) * (k - 1)]],
        }
        for name, mean in {**base, **{n.replace("_", " "): v for n, v in means.items()}}.items()
        for k in range(3)
    ]


def test_ablations_hold_together_or_not():
    assert fig8.verdict(ablation_rows()).holds
    assert not fig8.verdict(ablation_rows(rp_only=0.9)).holds
    assert not fig8.verdict(ablation_rows(window_6=0.8)).holds
    assert not fig8.verdict(ablation_rows(no_momentum=1.0)).holds
    sentence = fig8.verdict(ablation_rows(no_time=2.5)).sentence
    assert "time hardly: does not hold" in sentence and "momentum needed: holds" in sentence


def skipping_rows(shift, seconds=1.0, wobble=0.001):
    rows = []
    for seed in range(5):
        for rate in (probing.WITH, probing.WITHOUT):
            own = shift + wobble * (seed - 2) if rate == probing.WITHOUT else 0.0
            losses = [[2.0 + seed] * 2, [1.0 + own] * 2, [0.8 + own] * 2]
            more = {"rate": rate, "seed": seed, "losses": losses, "ratios": [6.0] * 10 + [None, 1.0], "skipped": 0.8}
            took = seconds if rate == probing.WITHOUT else 2.0
            rows.append({"figure": "probing", "kind": "train", "seconds": took, **more})
    return rows


def test_skipping_must_leave_the_curve_where_it_is_and_be_faster():
    assert probing.verdict(skipping_rows(0.0)).holds
    assert probing.speed(skipping_rows(0.0)) == 2.0
    assert not probing.verdict(skipping_rows(0.1)).holds  # elsewhere
    assert not probing.verdict(skipping_rows(0.0, wobble=0.1)).holds  # too uncertain
    assert not probing.verdict(skipping_rows(0.0, seconds=3.0)).holds  # slower
    assert "10^6.0 times that of es in the first" in probing.verdict(skipping_rows(0.0)).sentence


def test_paired_differences_have_students_interval():
    """Three gaps 1, 2, 3: mean 2, standard error 1 / sqrt 3, t of 2 degrees of freedom 4.303."""
    interval = statistics.paired(np.array([11.0, 22.0, 33.0]), np.array([10.0, 20.0, 30.0]))
    assert interval == pytest.approx((2.0, 2 - 4.303 / 3**0.5, 2 + 4.303 / 3**0.5), abs=1e-3)


def curve(name, task, level, optimizer):
    lines = [[level] * 4] * 2
    means = {"mean_train": [level] * 2, "mean_test": [level] * 2}
    more = {"name": name, "task": task, "optimizer": optimizer, "steps": [1, 2, 3, 4], "train": lines, "test": lines}
    return {"figure": "fig6", "kind": "curve", **more, **means}


def race_rows(learned, slower=1.0):
    rows = [
        {
            "figure": "fig6",
            "kind": "timing",
            "seconds": {"learned": slower, "adam": 1, "rmsprop": 1, "sgd": 1, "adam8": 1},
        }
    ]
    for task in range(8):
        for name in ("adam", "rmsprop", "sgd"):
            rows += [curve(f"{name} ({t})", task, 2.0 + 0.01 * task, name) for t in ("train", "valid")]
        rows += [curve(f"adam8 ({t})", task, 2.0, "adam8") for t in ("train", "test")]
        rows += [curve(f"learned ({t})", task, learned, "learned") for t in ("train", "valid")]
    return rows


def test_the_race_is_won_against_every_baseline_or_not():
    assert fig6.verdict(race_rows(1.0)).holds
    assert not fig6.verdict(race_rows(2.02)).holds
    table = fig6.comparisons(race_rows(1.0))
    assert len(table) == 16 and all(wins == 8 for *_, wins in table)
    assert table[0][2].value == pytest.approx(1.035)


def test_a_slower_step_stretches_the_curve():
    rows = race_rows(1.0, slower=2.0)
    for r in rows:
        if r["kind"] == "curve":
            r["train"] = [[4.0, 3.0, 2.0, 1.0]] * 2
    fast, slow = (fig6.means_in_time(rows, name, "train")[0] for name in ("adam (train)", "learned (train)"))
    assert fast == pytest.approx(4 * 0.25 + 2.5 * 0.75, abs=0.02)
    assert slow == pytest.approx(4 * 0.5 + 3.5 * 0.5, abs=0.02)


def test_digits_and_elsewhere_are_told_apart():
    def one(where, optimizer, mean, last):
        more = {"where": where, "source": "x", "optimizer": optimizer, "task": 0, "start": 0, "first": 2.3}
        return {"figure": "fig7", "kind": "curve", **more, "train": [2.0, last], "mean_train": mean, "mean_test": mean}

    def rows(valid):
        means = {"adam": 1.2, "learned (train)": 1.1, "learned (valid)": valid}
        return [one(where, name, mean, 0.5) for where in ("digits", "wide") for name, mean in means.items()]

    assert fig7.verdict(rows(1.0)).holds and not fig7.verdict(rows(1.15)).holds
    assert fig7.gaps(rows(1.0), "wide", "learned (train)", "train").tolist() == pytest.approx([0.1])
    assert fig7.drops(rows(1.0), "learned (train)").tolist() == pytest.approx([1.8])


def test_shipped_optimizers_are_tried_on_digits_where_they_fit():
    assert set(fig7.shipped(("mini",))) == {"small-conv-train", "small-conv-valid"}
    assert fig7.shipped(TINY) == {}  # another size of network


def test_longer_steps_triple_both_outputs_and_nothing_else():
    config = load("mini", ["optimizer.hidden=3"])
    theta = np.random.default_rng(0).normal(size=len(initial_theta(config))).astype(np.float32)
    longer = decode(fig4.longer_steps(encode(theta), config))
    np.testing.assert_array_equal(longer[:-8], theta[:-8])
    np.testing.assert_array_equal(longer[-8:], 3 * theta[-8:])  # output kernel [3, 2] and bias [2]


def variance_rows(first, last):
    rows = [
        {"figure": "fig5", "kind": "train", "objective": "train", **bands([10.0**first] * 10 + [10.0**last] * 10)}
        for _ in range(2)
    ]
    more = {"figure": "fig4", "kind": "pairs", "when": "trained"}
    return [*rows, *({**more, "window": w, "log_ratio": [r, r - 0.5, r + 0.5]} for w, r in ((5, -4.0), (300, 6.0)))]


def bands(rp):
    return {"var_rp": [[0, v, 0] for v in rp], "var_es": [[0, 1.0, 0]] * len(rp)}


def test_the_variance_must_grow_past_es_along_the_training():
    assert fig4.verdict(variance_rows(-4, 3)).holds
    assert not fig4.verdict(variance_rows(-4, -1)).holds
    assert not fig4.verdict(variance_rows(1, 3)).holds
    assert "10^-4.0 (-4.5 to -3.5) times at T = 5, 10^6.0" in fig4.verdict(variance_rows(-4, 3)).sentence


def evaluation_rows(learned, adam):
    rows = []
    for objective in ("train", "valid"):
        for seed, loss in enumerate(learned):
            thetas = {"0": f"start {seed}", "10": f"end {seed}"}
            rows.append({"figure": "fig5", "kind": "train", "objective": objective, "seed": seed, "thetas": thetas})
            for version, level in ((0, 2.3), (10, loss)):
                losses = [level, level + 0.1, level + 0.05]
                more = {"objective": objective, "seed": seed, "version": version}
                rows.append(
                    {"figure": "fig5", "kind": "evaluation", "outer_train": losses, "outer_test": losses, **more}
                )
        for split in ("outer_train", "outer_test"):
            losses = [[9.0, adam], [adam + 0.1, 9.0], [adam, adam + 0.2]]
            rows.append(
                {
                    "figure": "fig5",
                    "kind": "adam",
                    "objective": objective,
                    "split": split,
                    "rates": [0.1, 1.0],
                    "losses": losses,
                }
            )
    return rows


def test_the_best_start_is_the_one_with_the_least_outer_train_loss():
    rows = evaluation_rows([1.5, 1.2, 1.4], adam=1.6)
    assert fig5.best_seed(rows, "train") == 1 and fig5.best_theta(rows, "valid") == "end 1"
    assert fig5.best_theta(rows[:5], "train") is None  # a start that is not evaluated to its end
    assert fig5.tuned_adam(rows, "train", "outer_test").tolist() == pytest.approx([1.6, 1.7, 1.6])
    assert fig5.verdict(rows).holds and not fig5.verdict(evaluation_rows([1.5, 1.2], adam=1.1)).holds
