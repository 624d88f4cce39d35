"""The score table and the sentence on pay-back, by hand numbers."""

import re

import numpy as np
import pytest

from cluster.report.score_table import Scored, named, pay_back_sentence, score_notes, score_rows
from workers.evaluation.comparison import Comparison
from workers.evaluation.scores import Scores, Side, Versus
from workers.evaluation.statistics import Estimate

VERSUS = Versus(100, np.ones(2), np.ones(2), Estimate(1.5, 1.2, 1.8), Estimate(1.1, None, None), 0.9, 1, 0.8)
SIDES = (
    Side("learned", 1, (), 4.0, 0.002, 1.0, 0.8),
    Side("adamw", 66, ("1, cosine",), 122.0, 0.001, 1.1, 0.5),
)
SCORES = Scores((1000, 1001), 500, VERSUS, {"adamw": (VERSUS, VERSUS, VERSUS)}, SIDES, (), {})


def test_rows_have_what_each_side_was_given() -> None:
    _, learned, adamw = score_rows([Scored("learned", "train", SCORES)])
    assert learned == ("learned", "1", "4", "1.0000", "0.80", "1.50 (1.20 to 1.80)", "1.10", "1/2")
    assert adamw[:5] == ("adamw", "66", "122", "1.1000", "0.50")


def test_rows_of_several_learned_optimizers_share_the_baselines() -> None:
    rows = score_rows([Scored(name, "train", SCORES) for name in "ab"])
    assert [row[0] for row in rows] == ["optimizer", "a", "b", "adamw"]
    assert rows[3][5:] == ("", "", "")


@pytest.mark.parametrize(
    ("cost", "sentence"),
    [
        (
            900.0,
            "outer-training cost 900 core seconds; .* saves 60 core seconds against tuning adamw with 66 trials: pays",
        ),
        (901.0, "pays for itself after 16 trainings"),
        (None, "cost is not recorded here; a training with the learned optimizer saves 60 core seconds .*66 trials$"),
    ],
)
def test_pay_back_is_computed(cost: float | None, sentence: str) -> None:
    assert re.search(sentence, pay_back_sentence(SCORES, cost))


def test_pay_back_that_saves_nothing_says_so() -> None:
    cheap = SCORES._replace(sides=(SIDES[0], SIDES[1]._replace(core_seconds=1.0)))
    assert "saves nothing" in pay_back_sentence(cheap, 10.0)


def test_notes_list_what_was_rejected() -> None:
    assert score_notes([Scored("learned", "train", SCORES)], 1.0)[0] == "settings rejected early: 1 of 66 of adamw"


def test_comparison_without_scores_has_no_table() -> None:
    assert named(Comparison("train", 7, "a", (0,), np.ones(1), ())) == [] and named(None) == []
