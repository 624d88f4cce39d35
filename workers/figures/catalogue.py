"""The figures by name. Jobs and results are JSON here, as they travel and lie on disk, and records inside the figures."""

import importlib
from collections.abc import Mapping, Sequence
from typing import Any

from common.errors import UserError
from workers.figures.figure import Job, Json, Outcome, Train

NAMES = (
    "fig2",
    "fig3",
    "fig4",
    "fig5",
    "fig6",
    "fig7",
    "fig8",
    "searches",
    "probing",
    "staleness",
    "estimators",
    "allocation",
    "mixtures",
)
SCALES = ("mini", "wallclock", "long", "headline", "paper")
Records = Sequence[Mapping[str, Any]]


def chosen(figures: Sequence[str], scale: str) -> tuple[str, ...]:
    """The figures that are asked for, where ("all",) stands for all of a scale. Raises UserError for what there is not."""
    if scale not in SCALES:
        raise UserError(f"there is no scale {scale!r}: use one of {', '.join(SCALES)}")
    if tuple(figures) == ("all",):
        return tuple(name for name in NAMES if scale in scales(name))
    for name in figures:
        if scale not in (known := scales(name)):
            raise UserError(f"{name} has no scale {scale!r}: choose --scale {' or '.join(known)}")
    return tuple(figures)


def concludes_from_parts(name: str) -> bool:
    """Whether the figure has an outcome and a picture while some of its jobs have no result."""
    return bool(getattr(module(name), "FROM_PARTS", False))


def scales(name: str) -> tuple[str, ...]:
    """The scales of a figure."""
    return tuple(module(name).SCALES)


def module(name: str) -> Any:
    if name not in NAMES:
        raise UserError(f"there is no figure {name!r}: use one of {', '.join(NAMES)}, or all")
    return importlib.import_module(f"workers.figures.{name}")


def needs(name: str, scale: str = "mini") -> tuple[str, ...]:
    """Figures whose results this one uses."""
    needed: tuple[str, ...] | Mapping[str, tuple[str, ...]] = module(name).NEEDS
    return needed[scale] if isinstance(needed, Mapping) else needed


def order(names: Sequence[str], scale: str = "mini") -> list[str]:
    """The figures and those they need, each after those it needs."""
    ordered: list[str] = []
    for name in names:
        ordered += [n for n in (*order(needs(name, scale), scale), name) if n not in ordered]
    return ordered


def jobs(name: str, scale: str, results: Records) -> list[Json]:
    """The jobs known so far, given the results of this figure and of those it needs."""
    return [job.to_json() for job in module(name).jobs(scale, parse(results))]


def placed(record: Mapping[str, Any], data: str) -> Json:
    """The job with its images in the class store `data`. Its name stays: the content of the store is the paper's."""
    override = f"dataset.path={data}"
    return {**record, **{key: [*record[key], override] for key in ("settings", "judge") if record.get(key)}}


def perform(record: Mapping[str, Any], train: Train) -> Json:
    """The result of a job."""
    figure = module(record["figure"])
    kind = next(kind.job for kind in figure.KINDS if kind.job.kind == record["kind"])
    result: Json = figure.perform(kind.from_json(record), train).to_json()
    return result


def parse(results: Records) -> list[Job]:
    """The results of any figures as records."""
    figures = {record["figure"] for record in results}
    kinds = {(kind.job.figure, kind.job.kind): kind.result for name in figures for kind in module(name).KINDS}
    return [kinds[record["figure"], record["kind"]].from_json(record) for record in results]


def claim(name: str) -> str:
    sentence: str = module(name).CLAIM
    return sentence


def outcome(name: str, results: Records) -> Outcome:
    found: Outcome = module(name).outcome(parse(results))
    return found


def draw(name: str, results: Records) -> Any:
    """The picture, a matplotlib figure."""
    module(name)
    return importlib.import_module(f"workers.figures.pictures.{name}").draw(parse(results))
