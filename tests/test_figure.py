"""What all figures share: the names of jobs, their JSON, and short numbers."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from helpers.tasks import TINY

from workers.figures.figure import Job, input_only, key, of_kind, rounded


@dataclass(frozen=True, kw_only=True)
class OneJob(Job, figure="fig9", kind="one"):
    task: int
    shown: str = key("title")
    theta: str | None = input_only()
    place: str | None = input_only(deciding=False)


@dataclass(frozen=True, kw_only=True)
class One(OneJob):
    losses: Sequence[float]
    extra: float | None = None


@dataclass(frozen=True, kw_only=True)
class OtherJob(Job, figure="fig9", kind="other"):
    task: int
    shown: str = key("title")
    theta: str | None = input_only()


def job(**changes):
    return OneJob(**{"label": "label", "settings": TINY, "task": 1, "shown": "x", **changes}).named()


def test_name_contains_figure_and_label():
    assert job().name.startswith("fig9-label-") and job() == job()


def test_name_depends_on_all_that_decides_the_result():
    other = OtherJob(label="label", settings=TINY, task=1, shown="x").named()
    changed = [job(task=2), job(shown="y"), job(theta="t"), job(settings=(*TINY, "seed=1")), other]
    assert len({job().name, *(one.name for one in changed)}) == 6


def test_name_ignores_storage_monitoring_and_places():
    kept = job(settings=(*TINY, "outer.keep_every=5", "metrics.port=9", "dataset.path=x"), place="/somewhere")
    assert kept.name == job().name


def test_job_survives_json():
    one = job(theta="long", place="/somewhere")
    record = one.to_json()
    assert (record["item"], record["title"], record["kind"]) == (one.name, "x", "one")
    assert OneJob.from_json(record) == one


def test_result_does_not_repeat_long_inputs_and_places():
    done = One.of(job(theta="long", place="/somewhere"), losses=[1.0])
    record = done.to_json()
    assert record["losses"] == [1.0] and record["item"] == job(theta="long").name
    assert record.keys() & {"theta", "place", "extra"} == set()
    assert One.from_json(record) == done


def test_of_kind_selects_results_and_no_jobs():
    done = One.of(job(), losses=[1.0])
    assert of_kind([job(), done], One) == [done]


def test_rounded_keeps_significant_digits():
    assert rounded({"a": [np.float32(1 / 3), 2]}, 3) == {"a": [0.333, 2.0]}
    assert rounded(np.array([123456.0])) == [123460.0]
