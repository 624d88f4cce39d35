"""The jobs of an evaluation: their names, their order, and the second stage by hand numbers."""

import json
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from helpers import run_files

from common.config import Config
from common.configfile import from_dict
from workers.evaluation import jobs, scores
from workers.evaluation.jobs import Learned, TimingJob, UnrollJob, encode, sha256
from workers.evaluation.results import timing_prefix

THETA = np.array([0.3, 0.5], np.float32)
RATES = (1e-4, 0.0316228, 10.0)
LOSSES = {1000: (2.0, 1.0, 3.0), 1001: (2.0, 3.0, 1.5)}  # of Adam, by task


def configuration(*baselines: str) -> Config:
    evaluation = {"tasks": 2, "initialisations": 3, "baselines": list(baselines), "rate_count": 3}
    task = {"family": "quadratic", "inner_steps": 40}
    return from_dict({"task": task, "curriculum": {"start": 10, "end": 20}, "evaluation": evaluation})


def first_results():
    adam = [
        run_files.constant_result("adam", task, losses[k], rate=RATES[k])
        for (task, losses), k in product(LOSSES.items(), range(3))
    ]
    own = {"theta_sha256": jobs.digest_of(THETA), "version": 5}
    return [*adam, *(run_files.constant_result("learned", task, 1.0, **own) for task in LOSSES)]


def test_job_names_identify_the_result() -> None:
    config = configuration("adam", "sgd")
    listed = jobs.first_stage(config, [Learned(THETA, 5)])
    names = [job.name for job in listed]
    assert len(set(names)) == len(names) == 2 * (1 + 2 * 3 + 2) + 1  # Adam also has the grid twice as fine
    assert names == [job.name for job in jobs.first_stage(config, [Learned(THETA, 6)])]
    assert not set(names) & {job.name for job in jobs.learned_jobs(config, Learned(THETA + 1))}


@pytest.mark.parametrize(
    "job",
    [*jobs.first_stage(configuration("adam"), [Learned(THETA, 5)]), TimingJob("AAAA", ("sgd",), (("adam8", "BBBB"),))],
)
def test_job_survives_json(job: jobs.Job) -> None:
    record = json.loads(json.dumps(job.to_json()))
    assert record["item"] == job.name and type(job).from_json(record) == job


def test_name_of_an_unroll_is_the_one_on_disk() -> None:
    assert UnrollJob("adam", 7, 2, rate=0.1).name == "outer_test-7-2-adam-0.1"
    near = [UnrollJob("adamw", 7, rate=0.1, decay=decay).name for decay in (0.1234567, 0.1234568, 0.125)]
    assert len(set(near)) == 3 and near[2] == "outer_test-7-0-adamw-0.1-0.125"
    learned = UnrollJob("learned", 7, theta=jobs.encode(THETA), outer_split="outer_train")
    assert learned.name == f"outer_train-7-0-learned-{jobs.digest_of(THETA)[:16]}"


def test_first_stage_groups_jobs_by_task() -> None:
    listed = jobs.first_stage(configuration("adam"), [Learned(THETA)])
    tasks = [job.task for job in listed if isinstance(job, UnrollJob)]
    assert tasks == sorted(tasks) and set(tasks) == {1000, 1001}
    assert isinstance(listed[-1], TimingJob)


def test_theta_survives_encoding() -> None:
    theta = np.random.default_rng(1).normal(size=9).astype(np.float32)
    np.testing.assert_array_equal(jobs.decode(jobs.encode(theta)), theta)
    assert jobs.digest_of(theta) != jobs.digest_of(theta[::-1])


def second_stage(results: list) -> list[UnrollJob]:
    return jobs.second_stage(configuration("adam"), results, [Learned(THETA, 5)])


def test_second_stage_takes_each_tasks_best_rate() -> None:
    listed = second_stage(first_results())
    adam = [(job.task, job.initialisation, job.rate) for job in listed if job.optimizer == "adam"]
    assert adam == [(1000, 1, 0.0316228), (1000, 2, 0.0316228), (1001, 1, 10.0), (1001, 2, 10.0)]
    learned = [job for job in listed if job.optimizer == "learned"]
    assert {job.version for job in learned} == {5} and len(learned) == 4
    assert [job.task for job in listed] == [1000] * 4 + [1001] * 4


def test_second_stage_repeats_the_fine_rate_of_the_best_score() -> None:
    """The rate of the least final loss, though its mean loss is high: all its initialisations enter the scores."""
    late = [replace(run_files.constant_result("adam", t, 9.0, rate=0.562341), blocks=(0.5,) * 20) for t in LOSSES]
    results = first_results() + late
    adam = {(job.task, job.initialisation, job.rate) for job in second_stage(results) if job.optimizer == "adam"}
    assert {(t, start, 0.562341) for t in LOSSES for start in (1, 2)} <= adam and len(adam) == 8
    done = results + [
        run_files.constant_result("adam", task, 0.5, rate=rate, initialisation=start) for task, start, rate in adam
    ]
    done += [
        run_files.constant_result("learned", t, 1.0, initialisation=k, theta_sha256=jobs.digest_of(THETA))
        for t, k in product(LOSSES, (1, 2))
    ]
    chosen = scores.chosen_of([r for r in done if r.optimizer == "adam"], "train")
    assert {task: sorted(starts) for task, starts in chosen.items()} == {task: [0, 1, 2] for task in LOSSES}
    assert {result.rate for starts in chosen.values() for result in starts.values()} == {0.562341}


def strong(**evaluation) -> Config:
    evaluation = {"tasks": 10, "baselines": ["adamw"], "rate_count": 4, "weight_decays": [0.0, 0.1], **evaluation}
    task = {"family": "quadratic", "inner_steps": 40}
    return from_dict({"task": task, "curriculum": {"start": 10, "end": 20}, "evaluation": evaluation})


def complete(listed: list[UnrollJob], best: float) -> list:
    """Results whose loss grows with the distance from a rate, with decay and with a schedule."""
    return [
        run_files.constant_result(
            job.optimizer,
            job.task,
            abs(np.log10(job.rate / best)) + job.decay + (job.schedule != "constant"),
            rate=job.rate,
            decay=job.decay,
            schedule=job.schedule,
        )
        for job in listed
    ]


def settings_by_task(listed: list[UnrollJob]) -> list[int]:
    return [len([job for job in listed if job.task == task]) for task in range(1000, 1010)]


def test_strong_baseline_crosses_rate_decay_and_schedule() -> None:
    listed = jobs.baseline_jobs(strong(rejection=False))
    assert settings_by_task(listed) == [4 * 2 * 2] * 10
    assert len({job.name for job in listed}) == 160
    assert listed[3].name == "outer_test-1000-0-adamw-0.0001-0.1-cosine"
    free = jobs.baseline_jobs(strong(rejection=False, baselines=["schedule_free_adamw"]))
    assert settings_by_task(free) == [8] * 10 and {job.schedule for job in free} == {"warm-up"}


def test_poor_settings_are_rejected_rung_by_rung() -> None:
    config, done = strong(), []
    counts = []
    for _ in range(4):
        listed = jobs.baseline_jobs(config, done)
        counts.append(settings_by_task(listed))
        done = complete(listed, 0.05)
    assert counts[0] == [16, 16] + [0] * 8
    assert counts[1] == [16, 16, 4, 4, 4] + [0] * 5
    assert counts[2] == counts[3] == [16, 16, 4, 4, 4] + [2] * 5
    last = [(job.rate, job.decay, job.schedule) for job in listed if job.task == 1009]
    assert last == [(0.215443, 0.0, "constant"), (0.215443, 0.1, "constant")]


def test_best_setting_of_a_single_task_is_not_rejected() -> None:
    config = strong()
    done = complete(jobs.baseline_jobs(config), 0.05)
    best = ("adamw", 1001, 10.0, 0.0, "constant")
    odd = [
        run_files.constant_result("adamw", 1001, -1.0, rate=10.0)
        if (r.optimizer, r.task, r.rate, r.decay, r.schedule) == best
        else r
        for r in done
    ]
    kept = {(job.rate, job.decay) for job in jobs.baseline_jobs(config, odd) if job.task == 1002}
    assert (10.0, 0.0) in kept


def test_groups_of_baselines_are_expanded_once() -> None:
    names = strong(baselines=["adam", "paper", "muon", "strong"]).evaluation.optimizers
    assert names == ("adam", "rmsprop", "sgd", "muon", "adamw", "nadamw", "schedule_free_adamw", "lion")


def test_timing_job_of_other_baselines_has_another_name() -> None:
    theta = encode(np.zeros(3, np.float32))
    names = {TimingJob(theta, baselines).name for baselines in (("adam",), ("adam", "muon"))}
    assert len(names) == 2 and all(name.startswith(timing_prefix(sha256(theta))) for name in names)


def test_unroll_job_of_another_family_has_another_name() -> None:
    theta = encode(np.zeros(1, np.float32))
    assert len({UnrollJob("learned", 1, theta=theta, family=family).name for family in (None, "adam", "rmsprop")}) == 3
