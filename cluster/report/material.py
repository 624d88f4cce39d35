"""What a report draws from, and what a picture of it is."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from cluster.runs import best
from cluster.runs.best import Best
from cluster.runs.cost import outer_training_cost
from cluster.runs.directory import RunDirectory
from common.config import Config
from common.update_record import UpdateRecord
from learner.history import read_history
from workers.evaluation.comparison import Comparison, Evaluation, read_evaluation
from workers.evaluation.results import UnrollResult
from workers.evaluation.scores import Scores

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Material(NamedTuple):
    """What a report draws from."""

    history: Sequence[UpdateRecord]
    unrolls: Sequence[UnrollResult]
    comparison: Comparison | None
    objective: str  # of the run: "train" or "valid"
    best: Best | None = None  # of the versions that were evaluated during training
    others: Sequence[tuple[str, Comparison]] = ()  # as in `Evaluation`
    pooled: Scores | None = None  # as in `Evaluation`
    cost: float | None = None  # of outer-training, core seconds; None: unknown
    families: Sequence[tuple[str, Comparison]] = ()  # comparisons on each family of a mixture


class Plot(NamedTuple):
    """A picture of a report, with one axes, so that a narrow screen can stack them."""

    name: str  # of its file
    title: str
    caption: str
    draw: "Callable[[Material], Figure | None]"  # None: the run has no data for it yet


def gather(run_dir: Path, config: Config, evaluation: Evaluation | None = None) -> Material:
    """Args: evaluation: of the run; by default read from its directory."""
    unrolls, comparison, others, pooled = evaluation or read_evaluation(run_dir / "evaluation", config)
    return Material(
        history=read_history(run_dir),
        unrolls=unrolls,
        comparison=comparison,
        objective=config.estimator.objective,
        best=best.read(RunDirectory(run_dir)),
        others=others,
        pooled=pooled,
        cost=outer_training_cost(run_dir, config),
        families=_families(run_dir, config),
    )


def _families(run_dir: Path, config: Config) -> list[tuple[str, Comparison]]:
    found = []
    for member in config.members if config.mixture else ():
        folder = RunDirectory(run_dir).of_family(member.name).evaluation
        if (comparison := read_evaluation(folder, member.config).comparison) is not None:
            found.append((member.name, comparison))
    return found
