"""Plans: arithmetic where it is exact, the command's answer, and a sentence for each mistake."""

import json
import random
from dataclasses import replace
from itertools import accumulate
from pathlib import Path

import pytest

from cluster.cli.main import main
from cluster.planning.costs import RAY_SECONDS, learner_costs
from cluster.planning.learner_failures import with_learner_failures
from cluster.planning.plan import Basis, durations, make_plan, updates_of
from cluster.planning.scenario import Costs, Failures, Scenario
from cluster.planning.simulation import LONGEST_RETRY_SECONDS, Simulation
from common.config import (
    Config,
    CurriculumConfig,
    EstimatorConfig,
    MixtureConfig,
    OuterConfig,
    TaskConfig,
    WorkersConfig,
)

CHEAP = Costs(exchange=1e-6, update=1e-6, latency=0.0)
RAMP = CurriculumConfig(start=10, end=110, updates=100, jitter=0.0)


def config(**sections) -> Config:
    known = {
        "curriculum": RAMP,
        "outer": OuterConfig(updates=200, batch_samples=8),
        "workers": WorkersConfig(count=40),
    }
    return Config(**(known | sections))


def test_plan_of_an_idle_learner_is_the_work_over_the_workers() -> None:
    found = make_plan(config(), Basis(0.1, CHEAP))
    by_version = {m.version: m.sample_seconds for m in found.moments}
    assert sorted(by_version) == [0, 25, 50, 75, 100]
    ramp = sum(25 * (by_version[v] + by_version[v + 25]) / 2 for v in (0, 25, 50, 75))
    sample_seconds = ramp + 100 * by_version[100]  # of one sample per update, over all 200
    assert 3600 * found.hours == pytest.approx(8 * sample_seconds / 40, rel=0.03)
    assert found.core_hours == pytest.approx(41 * found.hours)
    assert found.core_seconds_per_update == pytest.approx(3600 * found.core_hours / 200)


@pytest.mark.parametrize(
    ("sections", "updates"),
    [
        ({"curriculum": replace(RAMP, start=10, end=10)}, 10),  # 8 samples x 2 unrolls x 10 steps = 160 of an update
        ({"curriculum": replace(RAMP, start=10, end=10), "estimator": EstimatorConfig(pairs=5)}, 2),
        ({"curriculum": replace(RAMP, start=400, end=400), "task": TaskConfig(inner_steps=500)}, 1),
        ({"curriculum": RAMP}, 8),  # windows of 10, 11, ... 17 steps are 108, of 1600 / 16 = 100
        ({"curriculum": replace(RAMP, start=10, end=10), "outer": {"updates": 7}}, 7),
        ({"curriculum": replace(RAMP, start=10, end=10), "outer": {"inner_steps": 1601}}, 11),
        ({"curriculum": replace(RAMP, start=10, end=10), "outer": {"inner_steps": 0}}, 200),
    ],
)
def test_plan_ends_where_the_inner_steps_do(sections: dict, updates: int) -> None:
    outer = OuterConfig(**{"updates": 200, "batch_samples": 8, "inner_steps": 1600} | sections.get("outer", {}))
    found = make_plan(config(**sections | {"outer": outer}), Basis(0.1, CHEAP))
    assert found.updates == updates and found.moments[-1].version <= updates
    assert found.core_seconds_per_update == pytest.approx(3600 * found.core_hours / updates)


def test_plan_of_truncated_problems_takes_their_mean_window() -> None:
    """Problems of 500 steps are cut into 400 and 100: 250 on average, 4,000 in an update."""
    flat = replace(RAMP, start=400, end=400)
    outer = OuterConfig(updates=200, batch_samples=8, inner_steps=40_000)
    settings = config(curriculum=flat, task=TaskConfig(inner_steps=500), outer=outer)
    assert make_plan(settings, Basis(0.1, CHEAP)).updates == 10


def test_plan_of_a_mixture_takes_the_mean_of_its_families() -> None:
    """Windows of 10 and, in problems of 4 steps, of 4: 7 on average, 224 in an update of 8 samples of two pairs."""
    families = tuple(MixtureConfig(str(n), task=TaskConfig(inner_steps=n)) for n in (40, 4))
    outer = OuterConfig(updates=200, batch_samples=8, inner_steps=2240)
    flat = replace(RAMP, start=10, end=10)
    settings = config(curriculum=flat, mixture=families, estimator=EstimatorConfig(pairs=2), outer=outer)
    assert updates_of(settings) == 10


def test_plan_twice_the_workers_halve_the_time_until_saturation() -> None:
    def hours(workers: int, exchange: float) -> float:
        costs = Costs(exchange=exchange, update=0.0)
        return make_plan(config(workers=WorkersConfig(count=workers)), Basis(0.1, costs)).hours

    assert hours(40, 1e-6) / hours(80, 1e-6) == pytest.approx(2, rel=0.05)
    assert hours(400, 1.0) / hours(800, 1.0) == pytest.approx(1, rel=0.02)


def test_plan_gives_the_workers_that_saturate_the_learner() -> None:
    flat = replace(RAMP, start=50, end=50)
    [moment] = make_plan(config(curriculum=flat), Basis(0.1, Costs(0.02, 0.08))).moments
    assert moment.most_workers == pytest.approx(moment.sample_seconds / (0.02 + 0.08 / 8), abs=1)


def test_plan_with_failing_workers_takes_longer() -> None:
    basis = Basis(0.1, CHEAP)
    calm, failing = (make_plan(config(), b) for b in (basis, basis._replace(failures=Failures(worker_mtbf=60.0))))
    assert failing.hours > 1.05 * calm.hours
    assert failing.moments[-1].outcome.goodput < calm.moments[-1].outcome.goodput


STEADY = Scenario(64, 16, durations(config(curriculum=RAMP), 100, 0.2), CHEAP)  # a sample takes 20 s, a batch 5 s


@pytest.mark.parametrize(("batch", "expected"), [(16, 2.4), (160, 24.0)])
def test_learner_failure_costs_half_a_batch(batch: int, expected: float) -> None:
    failures = Failures(learner_mtbf=1e6, learner_restart=0.1)
    scenario = STEADY._replace(batch=batch, failures=failures)
    calm = Simulation(scenario._replace(failures=Failures()), 0).run(12_800, 128)
    assert calm.seconds_per_update / 2 == pytest.approx(expected, rel=0.1)
    assert with_learner_failures(scenario, calm)[1] == pytest.approx(expected, rel=0.25)


def test_failure_of_a_saturated_learner_costs_its_restart() -> None:
    failures = Failures(learner_mtbf=1e6, learner_restart=30.0)
    scenario = STEADY._replace(costs=Costs(1.0, 1.0), failures=failures)  # 1.06 s per sample of 0.3 s: a queue
    calm = Simulation(scenario._replace(failures=Failures()), 0).run(3200, 128)
    pause = LONGEST_RETRY_SECONDS  # at most, until the first worker asks again
    assert 30.0 < with_learner_failures(scenario, calm)[1] < 30.0 + pause + 16 * 1.06


def test_rare_learner_failures_slow_a_run_as_simulated() -> None:
    scenario = STEADY._replace(failures=Failures(learner_mtbf=200.0, learner_restart=20.0))
    calm = Simulation(scenario._replace(failures=Failures()), 0).run(12_800, 128)
    scaled, _ = with_learner_failures(scenario, calm)
    direct = Simulation(scenario, 1).run(32_000, 128)
    assert direct.learner_failures > 40
    assert scaled.samples_per_second == pytest.approx(direct.samples_per_second, rel=0.03)
    assert scaled.goodput == pytest.approx(direct.goodput, rel=0.03) and direct.goodput < 0.95


def test_plan_with_failing_learner_takes_longer() -> None:
    flat, basis = config(curriculum=replace(RAMP, start=50, end=50)), Basis(0.1, CHEAP)
    calm, rare, often = (
        make_plan(flat, basis._replace(failures=Failures(learner_mtbf=t))).hours for t in (1e9, 1e3, 1e2)
    )
    assert calm == pytest.approx(make_plan(flat, basis).hours, rel=1e-6)
    assert calm < rare < often


def test_plan_is_deterministic() -> None:
    assert make_plan(config(), Basis(0.1, CHEAP)) == make_plan(config(), Basis(0.1, CHEAP))


def test_durations_add_up_to_whole_inner_problems() -> None:
    settings = config(curriculum=replace(RAMP, jitter=0.2))
    samples, length = durations(settings, 100, 1.0)(random.Random(7)), settings.task.inner_steps
    first = random.Random(7).randint(1, length)  # the problem in progress has so many steps left
    reached = list(accumulate(next(samples) for _ in range(200)))
    assert {first + k * length for k in range(20)} <= set(reached)


def test_durations_of_drawn_horizons_end_between_the_two() -> None:
    settings = config(curriculum=replace(RAMP, start=1000, end=1000), task=TaskConfig(inner_steps=(10, 1000)))
    draw = durations(settings, 0, 1.0)(random.Random(7))
    lengths = [next(draw) for _ in range(400)][1:]
    assert 10 <= min(lengths) < 15 and 700 < max(lengths) <= 1000
    assert 80 < sorted(lengths)[len(lengths) // 2] < 125  # the median of the log-uniform distribution is 100


def test_learner_costs_are_the_rays_call_and_its_own_work() -> None:
    costs = learner_costs(config(), 40)
    assert RAY_SECONDS < costs.exchange < RAY_SECONDS + 0.01
    assert 0 < costs.update < 1


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.toml").write_text(
        '[task]\nfamily = "quadratic"\ninner_steps = 20\n[curriculum]\nstart = 4\nend = 8\n[outer]\nupdates = 40\n'
    )
    return tmp_path


def test_plan_prints_one_line_of_json(folder: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["plan", "own.toml", "--workers", "5", "--json"]) == 0
    out = capsys.readouterr().out
    found = json.loads(out)
    assert out.count("\n") == 1
    assert found["workers"] == 5 and found["updates"] == 40 and found["step_seconds"] > 0
    assert found["core_hours"] == pytest.approx(6 * found["hours"])
    assert [m["version"] for m in found["moments"]] == [0, 10, 20, 30, 40]
    assert list(folder.iterdir()) == [folder / "own.toml"]


def test_plan_prints_a_table(folder: Path, capsys: pytest.CaptureFixture) -> None:
    given = ["--step-seconds", "60", "--worker-mtbf", "1", "--learner-mtbf", "24"]
    assert main(["plan", "own.toml", "--workers", "5", *given]) == 0
    out = capsys.readouterr().out
    assert out.startswith("40 updates of 8 samples, 5 workers: ")
    assert "6e+04 ms, as given" in out and len(out.splitlines()) == 10
    assert "a failure of the learner costs " in out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["own.toml", "--step-seconds", "0"], "--step-seconds 0 is no duration"),
        (["own.toml", "--step-seconds", "nan"], "--step-seconds nan is no duration"),
        (["own.toml", "--step-seconds", "1", "--worker-mtbf", "-2"], "--worker-mtbf -2 is no time between failures"),
        (["own.toml", "--step-seconds", "1", "--worker-mtbf", "nan"], "--worker-mtbf nan is no time between failures"),
        (["own.toml", "--step-seconds", "1", "--learner-mtbf", "0"], "--learner-mtbf 0 is no time between failures"),
        (["own.toml", "--step-seconds", "60", "--workers", "1", "--learner-mtbf", "0.1"], "loses most batches"),
        (["own.toml", "--step-seconds", "60", "--worker-mtbf", "0.01"], "finishes hardly any sample"),
        (["own.toml", "--step-seconds", "1", "--cores-per-node", "0"], "--cores-per-node 0 leaves no worker on a node"),
        (["own.toml", "--workers", "0"], "workers.count = 0"),
        (["own.toml", "--workers", "100001"], "a plan simulates each worker, at most 100,000"),
        (["none.toml"], "none.toml"),
        (["paper"], "give it by --step-seconds"),
    ],
)
def test_plan_with_bad_input_ends_with_a_sentence(
    folder: Path, capsys: pytest.CaptureFixture, arguments: list[str], sentence: str
) -> None:
    assert main(["plan", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == "" and sentence in err and "Traceback" not in err
