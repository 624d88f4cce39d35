"""Terminal charts: shapes, extremes, logarithms and gaps."""

import math

from cluster.monitoring.terminal_chart import LABEL, chart, resample


def dots(rows: list[list[str]]) -> list[str]:
    """The drawing without labels and line numbers."""
    return ["".join(cell[-1] for cell in row[1:]) for row in rows]


def test_chart_has_the_requested_size() -> None:
    for count in (0, 1, 7, 500):
        rows = chart([[math.sin(i) for i in range(count)]], width=40, height=5)
        assert len(rows) == 5
        assert all(len(row[0]) == LABEL and len(row) == 1 + 40 - LABEL for row in rows)


def test_chart_rising_line_goes_up_to_the_right() -> None:
    drawn = dots(chart([[0.0, 1.0]], width=LABEL + 1, height=1))
    assert drawn == ["⡸"]  # left: the lowest dot, right: a stroke from above it to the top
    rows = dots(chart([list(range(100))], width=LABEL + 20, height=4))
    assert rows[0].strip() and rows[0][0] == " " and rows[0][-1] != " "
    assert rows[3][0] != " " and rows[3][-1] == " "


def test_chart_labels_are_the_extremes() -> None:
    rows = chart([[3.0, -2.0], [10.0, 1.0]], width=30, height=3)
    assert [row[0].strip() for row in rows] == ["10", "", "-2"]
    rows = chart([[1e-6, 1e6]], width=30, height=3, log=True)
    assert [row[0].strip() for row in rows] == ["1e+06", "", "1e-06"]
    assert [len(row[0]) for row in chart([[-1.2345e-11, 1.0]], width=30, height=3)] == [LABEL] * 3


def test_chart_log_axis_is_even_in_ratios() -> None:
    rows = dots(chart([[1.0, 10.0, 100.0]], width=LABEL + 3, height=3, log=True))
    assert [row.rstrip() != "" for row in rows] == [True, True, True]
    assert rows[1][1] != " "  # 10 lies halfway


def test_chart_omits_non_finite_and_non_positive_values() -> None:
    rows = dots(chart([[1.0, math.nan, math.inf, 2.0]], width=LABEL + 2, height=2))
    assert rows[1][0] != " " and rows[0][1] != " "
    assert chart([[0.0, -1.0]], width=20, height=2, log=True)[0][1:] == [" "] * 12
    assert dots(chart([[math.nan]], width=20, height=2)) == [" " * 12] * 2


def test_chart_constant_lies_in_the_middle() -> None:
    rows = dots(chart([[5.0] * 4], width=LABEL + 2, height=3))
    assert [row.strip() != "" for row in rows] == [False, True, False]


def test_chart_cells_name_their_line() -> None:
    cells = {c[0] for row in chart([[0.0, 0.0], [9.0, 9.0]], 20, 3) for c in row[1:] if len(c) == 2}
    assert cells == {"0", "1"}


def test_resample_keeps_order_and_takes_medians() -> None:
    assert resample([1, 2, 3], 5) == [1, 2, 3]
    assert resample([1, 1, 9, 4, 4, 4], 2) == [1, 4]
    assert resample([math.nan, 2.0, math.nan, math.nan], 2)[0] == 2.0
    assert math.isnan(resample([math.nan, 2.0, math.nan, math.nan], 2)[1])
    assert len(resample(list(range(1000)), 64)) == 64
