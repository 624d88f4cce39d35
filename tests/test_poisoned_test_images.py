"""Tuning never looks at test images: with another set of them, every path of it chooses the same."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from common.config import Config
from common.configfile import from_dict
from common.data.dataset import open_dataset
from common.task import Images, TaskFamily, make_task
from workers.evaluation import jobs, search
from workers.evaluation.evaluator import Evaluator
from workers.evaluation.jobs import Learned
from workers.evaluation.perform import perform
from workers.evaluation.scores import score
from workers.evaluation.search import Plan, Rung, SearchResult
from workers.figures import fig7

pytestmark = pytest.mark.heavy
Run = Callable[[Evaluator, Config], object]


def configuration(objective: str) -> Config:
    return from_dict(
        {
            "task": {"family": "mlp", "units": [4], "batch_size": 4, "classes": 3, "inner_steps": 20},
            "dataset": {"image_size": 8, "classes": 20, "train_images": 6, "valid_images": 5, "test_images": 4},
            "optimizer": {"family": "adam"},
            "estimator": {"objective": objective, "outer_batches": int(objective == "valid")},
            "curriculum": {"start": 5, "end": 10},
            "evaluation": {
                "tasks": 5,
                "initialisations": 2,
                "baselines": ["adam", "adamw"],
                "rate_count": 3,
                "weight_decays": [0.1],
            },
        }
    )


def poisoned(task: TaskFamily) -> TaskFamily:
    """The same tasks, with test images that are inverted and carry the label of the next class."""

    def sample(random, outer_split):
        data = task.sample(random, outer_split)
        pixels, counts = data["test"]
        return {**data, "test": Images(np.roll(255 - pixels, 1, axis=0), np.roll(counts, 1))}

    return task._replace(sample=sample)


def evaluate(evaluator: Evaluator, config: Config) -> object:
    """What an evaluation chooses: its jobs of both stages, and the settings and numbers of its scores."""
    own, done = [Learned(np.array([-4.0], np.float32))], []
    while len(listed := [job for job in jobs.first_stage(config, own, done) if isinstance(job, jobs.UnrollJob)]) > len(
        done
    ):
        known = {result.name: result for result in done}
        done = [known.get(job.name) or evaluator.run(job) for job in listed]
    done = [replace(result, seconds_per_step=1.0) for result in done]
    found = score(done, jobs.tasks_of(config), config.estimator.objective)
    assert found is not None
    return [job.name for job in jobs.second_stage(config, done, own)], found.to_json()


def draw(evaluator: Evaluator, config: Config) -> object:
    """What the random search keeps and finds best."""
    plan, results = Plan(6, (Rung(2, 1), Rung(2, 1))), []
    while len(listed := search.jobs(plan, config.task.inner_steps, results)) > len(results):
        results = [SearchResult.from_json(perform(evaluator, job.to_json())) for job in listed]
    return [result.job for result in results], [search.best(results, loss).theta for loss in search.LOSSES]


@pytest.mark.parametrize("objective", ["train", "valid"])
@pytest.mark.parametrize("run", [evaluate, draw])
def test_tuning_is_blind_to_test_images(run: Run, objective: str) -> None:
    config = configuration(objective)
    task = make_task(config, open_dataset(config.dataset))
    assert run(Evaluator(config, task), config) == run(Evaluator(config, poisoned(task)), config)


def test_poison_changes_the_test_loss() -> None:
    config = configuration("train")
    task = make_task(config, open_dataset(config.dataset))
    job = jobs.UnrollJob("adam", 1000, rate=0.01)
    clean, bad = (Evaluator(config, family).run(job) for family in (task, poisoned(task)))
    assert clean.means.test != bad.means.test and clean.means[:2] == bad.means[:2]


def test_rates_of_figure_seven_are_blind_to_test_images(monkeypatch: pytest.MonkeyPatch) -> None:
    config = configuration("train")
    task = make_task(config, open_dataset(config.dataset))
    job = fig7.CurveJob(label="x", settings=(), where="wide", source="", task=0, start=0, optimizer="adam")
    rates = []
    for family in (task, poisoned(task)):
        evaluator = Evaluator(config, family)
        monkeypatch.setattr(fig7, "evaluator_of", lambda settings, evaluator=evaluator: evaluator)
        done = fig7.perform(job.named(), lambda *_: None)
        rates.append(done.rates)
    assert rates[0] == rates[1]
