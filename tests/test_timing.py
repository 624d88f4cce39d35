"""The timing protocol under a simulated clock."""

from workers.evaluation import timing


def test_interleaved_cases_alternate_without_their_first_run():
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


def test_summary_has_the_median_and_the_quartiles():
    result = timing.summarise("timing-x", {"adam": [4.0, 1.0, 2.0, 3.0, 100.0]})
    assert result.name == "timing-x"
    assert result.seconds == {"adam": 3.0} and result.quartiles == {"adam": (2.0, 4.0)}
