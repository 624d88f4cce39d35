"""The figures of the paper as jobs, stage by stage; an interrupted figure is resumed.

DIR/fig3.jsonl (the result of each job), DIR/fig3.png, DIR/fig3.json (the claim, whether it holds, and the sentence).
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cluster.jobs import job
from cluster.jobs.job import Job, Json, Pool, Results
from common import files, plotting
from common.errors import UserError
from workers.figures import catalogue

FigureProgress = Callable[[str, int, int], None]  # (figure, jobs done, jobs in all); an exception ends the command


class Setting(NamedTuple):
    """What is computed, and where the results are written."""

    scale: str
    folder: Path
    data: str | None = None  # the class store of a scale that needs one; a path that exists on every node


def reproduce(names: Sequence[str], setting: Setting, pool: Pool, progress: FigureProgress) -> None:
    """Computes what is missing of the figures and of those they depend on."""
    complete: dict[str, list[Json]] = {}
    for name in catalogue.order(names, setting.scale):
        before = [result for other in catalogue.needs(name, setting.scale) for result in complete[other]]
        complete[name] = results_of(name, before, setting, pool, progress)
        conclude(name, [*before, *complete[name]], setting.folder)


def conclude_so_far(names: Sequence[str], setting: Setting) -> dict[str, tuple[int, int]]:
    """Computes nothing: pictures and outcomes of the results that there are. Returns (results, jobs known) by figure.

    Raises:
      UserError: a figure has no result yet, or not all of them and needs all.
    """
    found: dict[str, list[Json]] = {}
    counts: dict[str, tuple[int, int]] = {}
    for name in catalogue.order(names, setting.scale):
        before = [result for other in catalogue.needs(name, setting.scale) for result in found[other]]
        found[name], of = stages(name, before, setting, kept(setting.folder / f"{name}.jsonl"))
        counts[name] = done, _ = len(found[name]), of
        if not done:
            raise UserError(f"{name} has no result in {setting.folder} yet: compute some without --so-far")
        if done < of and not catalogue.concludes_from_parts(name):
            raise UserError(
                f"{name} concludes from all of its results, and has {done} of {of}: compute without --so-far"
            )
        conclude(name, [*before, *found[name]], setting.folder)
    return counts


def kept(path: Path) -> Callable[[list[Job]], list[Json]]:
    """For `stages`: the results in a file, of the jobs that have one."""
    stored = job.read(path)
    return lambda jobs: [stored[one.name] for one in jobs if one.name in stored]


def results_of(name: str, before: list[Json], setting: Setting, pool: Pool, progress: FigureProgress) -> list[Json]:
    """The results of a complete figure, stage by stage. Results in its file from other settings or scales stay there.

    Args:
      before: the results of the figures it depends on.
    """
    stored = Results(setting.folder / f"{name}.jsonl")

    def computed(jobs: list[Job]) -> list[Json]:
        job.run(jobs, stored, pool, lambda done, total: progress(name, done, total))
        return stored.of(jobs)

    return stages(name, before, setting, computed)[0]


def stages(
    name: str, before: list[Json], setting: Setting, results_of_jobs: Callable[[list[Job]], list[Json]]
) -> tuple[list[Json], int]:
    """The results of a figure, and how many jobs it has. Results may name further jobs: asked until there are no new ones.

    Args:
      results_of_jobs: the results of jobs, of all or of those that have one, in their order.
    """
    results: list[Json] = []
    while True:
        specs = catalogue.jobs(name, setting.scale, [*before, *results])
        if setting.data is not None:
            specs = [catalogue.placed(spec, setting.data) for spec in specs]
        jobs = [Job.from_json(spec) for spec in specs]
        known = [one[job.NAME] for one in results]
        found = results if [one.name for one in jobs] == known else results_of_jobs(jobs)
        if [one[job.NAME] for one in found] == known:
            return results, len(jobs)
        results = found


def conclude(name: str, results: Sequence[Json], folder: Path) -> dict[str, Any]:
    """Writes the picture and the outcome of a figure; returns the outcome."""
    outcome = catalogue.outcome(name, results)
    record = {"figure": name, "claim": catalogue.claim(name), **outcome._asdict()}
    files.replace(folder / f"{name}.json", json.dumps(record, indent=1) + "\n")
    plotting.save(catalogue.draw(name, results), folder / f"{name}.png")
    return record
