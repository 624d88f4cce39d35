"""Checkpoints that are evaluated during training, kept under `evaluated/` until it is known which one is the best."""

import logging
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from cluster.jobs.job import MEMBER, NAME, Job, Json
from cluster.runs import best
from cluster.runs.best import Best
from cluster.runs.directory import RunDirectory
from common.config import Config
from common.errors import UserError
from learner import checkpoints
from learner.lineage import Position, contains, lineage
from workers.evaluation import jobs
from workers.evaluation.results import UnrollResult, parse

log = logging.getLogger(__name__)


def add(run: RunDirectory, path: Path) -> Path | None:
    """A second name of the checkpoint `path`, which the learner's retention does not delete; None if it is gone."""
    run.evaluated.mkdir(exist_ok=True)
    kept = run.evaluated / path.name
    try:
        if not kept.exists():
            os.link(path, kept)
    except FileNotFoundError:
        return None
    except OSError:  # a file system without hard links
        scratch = kept.with_suffix(".tmp")
        try:
            shutil.copyfile(path, scratch)
        except FileNotFoundError:
            return None
        os.replace(scratch, kept)
    return kept


def jobs_of(run: RunDirectory, config: Config) -> Iterator[tuple[Position, list[Job]]]:
    """The candidates on the lineage, with the jobs of their evaluation. Corrupt ones are removed."""
    chain = lineage(run.epochs)
    for position in checkpoints.positions(run.evaluated):
        path = checkpoints.path_of(run.evaluated, position)
        try:
            theta = checkpoints.load_theta(path)
        except UserError as error:
            log.warning("%s; it is no candidate for the best version", error)
            path.unlink(missing_ok=True)
            continue
        if contains(chain, position):
            yield position, choosing(config, jobs.Learned(theta, position.version))


def choosing(config: Config, subject: jobs.Learned) -> list[Job]:
    """The jobs of a candidate, on each family of a mixture."""
    return [_named(one, member.name) for member in config.members for one in jobs.choosing_jobs(member.config, subject)]


def _named(one: jobs.UnrollJob, member: str) -> Job:
    if not member:
        return Job.from_json(one.to_json())
    return Job.from_json({**one.to_json(), NAME: f"{member}-{one.name}", MEMBER: member})


def settle(run: RunDirectory, config: Config, results: Mapping[str, Json]) -> Best | None:
    """Names the best of the candidates that have all their results, and removes the others of these.

    Args:
      results: of all jobs so far, by name.
    """
    losses: dict[Position, float] = {}
    for position, wanted in jobs_of(run, config):
        if wanted and all(job.name in results for job in wanted):
            found = parse(results[job.name] for job in wanted)
            loss = loss_of(found, config)
            if np.isnan(loss):
                log.warning("version %d is not compared: a family's mean loss is negative", position.version)
                checkpoints.path_of(run.evaluated, position).unlink(missing_ok=True)  # not to be compared again
            else:
                losses[position] = loss
    if not losses:
        return None
    winner = min(losses, key=lambda position: (losses[position], position.version))
    made = Best(
        version=winner.version,
        epoch=winner.epoch,
        loss=losses[winner],
        objective=config.estimator.objective,
        tasks=config.evaluation.tasks,
        outer_split=best.CHOOSING,
        families=len(config.members),
        evaluated=len(_evaluated(config, results.values()) | {position.version for position in losses}),
    )
    best.write(run, made)
    for position in losses:
        if position != winner:
            with suppress(OSError):
                checkpoints.path_of(run.evaluated, position).unlink(missing_ok=True)
    return made


def loss_of(found: Sequence[UnrollResult], config: Config) -> float:
    """The mean loss of a version; of a mixture the geometric mean over its families, by their weights.

    NaN where a family's mean loss is negative: it has no geometric mean.
    """
    objective, members = config.estimator.objective, config.members
    means = [np.mean([one.mean(objective) for one in found if one.member == member.name]) for member in members]
    if not config.mixture:
        return float(means[0])
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.exp(np.average(np.log(means), weights=[member.weight for member in members])))


def _evaluated(config: Config, results: Iterable[Json]) -> set[int]:
    """The versions with results of all tasks, of candidates that were removed too."""
    tasks, wanted = jobs.tasks_of(config), config.evaluation.tasks * len(config.members)
    counts = Counter(
        line["version"]
        for line in results
        if line.get("optimizer") == "learned" and line["outer_split"] == best.CHOOSING and line["task"] in tasks
    )
    return {version for version, count in counts.items() if version is not None and count >= wanted}
