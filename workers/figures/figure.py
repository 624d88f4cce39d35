"""What every figure is made of: named items that any worker can compute, a picture, and a sentence.

A figure's module has

    CLAIM                     the paper's claim, one sentence
    items(scale, rows)        the items known so far, given the rows so far; when all of them have rows and asking again
                              names no new one, the figure is complete
    perform(record, train)    the row of one item
    draw(rows)                the picture
    verdict(rows)             whether the claim holds here

An item's name ends in a digest of all that decides its result, so a changed setting is another item.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from common import configfile
from common.config import Config, stable_tree
from common.update_record import UpdateRecord
from workers.evaluation.evaluator import Evaluator

Record = dict[str, Any]  # an item or a row, for JSON
Settings = Sequence[str]  # a preset, then overrides "section.key=value"


class Verdict(NamedTuple):
    """What the data say about a claim."""

    holds: bool
    sentence: str  # with the numbers and their uncertainty


class Trained(NamedTuple):
    """An outer-training, done."""

    theta: np.ndarray  # [P] float32
    kept: Mapping[int, np.ndarray]  # theta at the versions that were asked for
    history: Sequence[UpdateRecord]


Train = Callable[[Config, Sequence[int]], Trained]  # (config, versions whose theta to keep); given by the cluster room


def item(figure: str, kind: str, label: str, settings: Settings = (), **fields: Any) -> Record:
    """An item of a figure; `settings` name the configuration that it runs under."""
    config = deciding(config_of(tuple(settings))) if settings else {}
    decided = json.dumps([figure, kind, config, fields], sort_keys=True)
    digest = hashlib.sha256(decided.encode()).hexdigest()[:10]
    name = f"{figure}-{label}-{digest}"
    return {"item": name, "figure": figure, "kind": kind, "label": label, "settings": list(settings), **fields}


def deciding(config: Config) -> dict[str, Any]:
    """The configuration without what is kept on disk and shown, and where data lie: they must not make results void."""
    tree = stable_tree(config)
    workers = {key: value for key, value in tree["workers"].items() if key != "grace"}
    outer = {key: value for key, value in tree["outer"].items() if not key.startswith("keep_") and key != "journal"}
    return {**tree, "dataset": {**tree["dataset"], "path": ""}, "outer": outer, "workers": workers, "metrics": None}


def placed(record: Mapping[str, Any], data: str) -> Record:
    """The item with its images in the class store `data`. Its name stays: the content of the store is the paper's."""
    override = f"dataset.path={data}"
    return {**record, **{key: [*record[key], override] for key in ("settings", "judge") if record.get(key)}}


def row(record: Mapping[str, Any], **results: Any) -> Record:
    """The row of an item: what it was, without long inputs and places on one machine, and its results."""
    return {key: value for key, value in record.items() if key not in ("theta", "mnist")} | results


@lru_cache(maxsize=64)
def config_of(settings: tuple[str, ...]) -> Config:
    return configfile.load(settings[0], settings[1:])


@lru_cache(maxsize=4)
def evaluator_of(settings: tuple[str, ...]) -> Evaluator:
    """One per configuration and process, so that its unrolls are compiled once."""
    return Evaluator(config_of(settings))


def rounded(values: Any, digits: int = 5) -> Any:
    """Nested lists of floats with so many significant digits, to keep files small."""
    if isinstance(values, dict):
        return {key: rounded(value, digits) for key, value in values.items()}
    if isinstance(values, list | tuple | np.ndarray):
        return [rounded(value, digits) for value in values]
    return float(f"{float(values):.{digits}g}")


def of_kind(rows: Sequence[Mapping[str, Any]], figure: str, kind: str) -> list[Mapping[str, Any]]:
    return [row for row in rows if row["figure"] == figure and row["kind"] == kind]
