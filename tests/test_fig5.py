"""Figure 5: the best start, tuned Adam, and what counts as improvement."""

import re
from dataclasses import replace

import pytest
from helpers import run_files
from helpers.figures import result

from workers.figures import fig5
from workers.figures.fig5 import Adam, Evaluation, Training

TASKS = 20


def results(learned, adam):
    found = []
    for objective in ("train", "valid"):
        for seed, loss in enumerate(learned):
            thetas = {"0": f"start {seed}", "10": f"end {seed}"}
            found.append(result(Training, settings=("mini",), objective=objective, seed=seed, thetas=thetas))
            for version, level in ((0, 2.3), (10, loss)):
                losses = [level + 0.05 * (k % 5) for k in range(TASKS)]
                more = {"objective": objective, "seed": seed, "version": version}
                found.append(result(Evaluation, outer_train=losses, outer_test=losses, **more))
        for split in ("outer_train", "outer_test"):
            losses = [[9.0, adam], [adam + 0.1, 9.0], [adam, adam + 0.2], [adam, 9.0], [adam, 9.0]] * 4
            found.append(result(Adam, objective=objective, split=split, rates=[0.1, 1.0], losses=losses))
    return found


def test_best_training_has_the_least_outer_train_loss():
    best = fig5.best_training(results([1.5, 1.2, 1.4], adam=1.6), "train")
    assert best is not None and best.seed == 1


def test_best_theta_is_the_end_of_the_best_training():
    assert fig5.best_theta(results([1.5, 1.2, 1.4], adam=1.6), "valid") == "end 1"


def test_best_theta_waits_for_every_evaluation():
    found = results([1.5, 1.2, 1.4], adam=1.6)
    assert fig5.best_theta(found[:5], "train") is None and fig5.best_theta([], "train") is None


def test_tuned_adam_takes_the_best_rate_of_each_task():
    found = fig5.tuned_adam(results([1.5], adam=1.6), "train", "outer_test")
    assert found.tolist() == pytest.approx([1.6, 1.7, 1.6, 1.6, 1.6] * 4)


def test_outcome_holds_if_the_best_start_beats_adam():
    assert fig5.outcome(results([1.5, 1.2, 1.4], adam=1.6)).holds
    assert fig5.outcome(results([1.5, 1.2], adam=1.1)).holds is False
    close = fig5.outcome(results([1.5, 1.2], adam=1.3))
    assert close.holds is None and "learns: holds, ends below Adam: undecided" in close.sentence


def test_starts_that_end_at_one_loss_do_not_differ():
    said = fig5.outcome(results([1.2, 1.25], adam=1.6)).sentence
    assert (
        "starts differ: holds" in said and "the worst on outer-train tasks 0.05 (0.05 to 0.05) above the best" in said
    )
    assert "starts differ: undecided" in fig5.outcome(results([1.2, 1.2], adam=1.6)).sentence


@pytest.mark.parametrize("gap, decided", [(0.0, "holds"), (0.3, "does not hold"), (0.11, "undecided")])
def test_outer_overfitting_is_little_below_a_tenth_of_the_gain(gap, decided):
    """1.0 below guessing is learned; unseen tasks differ from the others by `gap`, give or take 0.05."""
    found = results([1.2], adam=1.6)
    for k, one in enumerate(found):
        if isinstance(one, Evaluation):
            found[k] = replace(one, outer_train=[loss - gap for loss in one.outer_train])
    assert re.search(
        f"outer-overfits by less than 10% of the 1 below guessing: {decided}", fig5.outcome(found).sentence
    )


def test_condensed_history_keeps_at_most_so_many_updates():
    history = run_files.history(40)
    kept = fig5.condensed(history, points=10)
    assert kept["versions"] == [1, 5, 9, 13, 17, 21, 25, 29, 33, 37]
    first = history[0].var_rp
    assert kept["var_rp"][0] == pytest.approx([first.q05, first.q50, first.q95], rel=1e-4)
