"""The final table, by hand numbers."""

import numpy as np

from cluster.report.table import aligned, final_table, table
from workers.evaluation.comparison import Baseline, Comparison
from workers.evaluation.tuning import Setting


def test_table_has_a_line_for_each_way_of_tuning() -> None:
    adam = Baseline(
        optimizer="adam",
        per_task=np.array([1.0, 2.0]),
        best=(Setting(0.1), Setting(0.01)),
        single=np.array([1.5, 2.5]),
        single_rate=0.1,
        fine=np.array([0.8, 2.0]),
        inside_grid=1,
    )
    text = table(Comparison("train", 7, "a", (1000, 1001), np.array([0.9, 1.2]), (adam,)))
    assert text.splitlines() == [
        "mean train loss over 2 unseen tasks",
        "optimizer  learning rate                 loss    ratio  wins",
        "learned                                  1.0500",
        "adam       best rate of each task        1.5000  0.700  2/2",
        "adam       the same, grid twice as fine  1.4000  0.750  1/2",
        "adam       best single rate              2.0000  0.525  2/2",
    ]


def test_final_table_without_comparison_names_the_command() -> None:
    assert final_table(None, "night") == "not evaluated yet: outertrain evaluate night"


def test_aligned_pads_columns_and_keeps_markup() -> None:
    assert aligned([("a", "[b]"), ("longer", ""), ("", ":x:")]) == ["a       [b]", "longer", "        :x:"]
