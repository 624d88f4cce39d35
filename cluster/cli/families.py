"""What commands print of an evaluation on the families of a mixture."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from cluster.jobs.evaluation import summary_of
from cluster.jobs.families import parts
from cluster.report.page import write_report
from cluster.report.table import families_table
from cluster.runs.directory import RunDirectory, shell_command
from common.config import Config
from workers.evaluation.comparison import Comparison, read_evaluation
from workers.evaluation.jobs import digest_of


class OfFamily(NamedTuple):
    """The evaluation on one family of tasks."""

    facts: dict[str, Any]  # what --json prints
    comparison: Comparison | None


def of_each(run: RunDirectory, config: Config, theta: np.ndarray) -> dict[str, OfFamily]:
    """The evaluations of theta [P] by family, whose pages are written; none without a mixture."""
    found = {}
    for part in parts(run, config) if config.mixture else ():
        evaluation = read_evaluation(part.run.evaluation, part.config, digest_of(theta))
        page = write_report(part.run.path, evaluation)
        numbers = summary_of(evaluation.comparison, part.config, theta)
        found[part.name] = OfFamily({**numbers, "report": str(page)}, evaluation.comparison)
    return found


def texts(families: Mapping[str, OfFamily], run: str) -> str:
    """One table of all families."""
    known = [(name, one.comparison) for name, one in families.items() if one.comparison is not None]
    return families_table(known) if known else f"not evaluated yet: {shell_command('evaluate', run)}"
