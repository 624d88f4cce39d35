"""The timing protocol under a clock that the test turns."""

from workers.evaluation import timing


def test_cases_take_turns_and_the_first_run_is_left_out():
    now, calls = [0.0], []

    def case(name, first, later):
        def run():
            now[0] += first if name not in calls else later
            calls.append(name)

        return run

    cases = {"fast": case("fast", 100.0, 1.0), "slow": case("slow", 200.0, 3.0)}
    seconds = timing.interleaved(cases, 3, lambda: now[0])
    assert seconds == {"fast": [1.0] * 3, "slow": [3.0] * 3}
    assert calls == ["fast", "slow"] * 4


def test_a_row_has_the_median_and_the_quartiles():
    row = timing.row("timing-x", {"adam": [4.0, 1.0, 2.0, 3.0, 100.0]})
    assert row["seconds"] == {"adam": 3.0} and row["quartiles"] == {"adam": [2.0, 4.0]}
    assert row["outer_split"] == "none"
