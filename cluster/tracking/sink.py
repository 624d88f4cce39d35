"""What a tracker is given and must do; one module of this package for each tracker."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from common.config import Config
from common.configfile import flat
from common.update_record import UpdateRecord


class TrackedRun(NamedTuple):
    """The run of outertrain that a tracker's run mirrors."""

    name: str
    folder: Path  # of this tracker's own files, inside the run directory; exists
    config: Config
    version: int  # outer updates that were made before
    identity: str | None  # of the tracker's run that is to be continued; None: a new one

    def parameters(self) -> dict[str, str]:
        """The configuration as text, by section.key."""
        return flat(self.config)


class Sink(Protocol):
    """An open run of a tracker. Any method may raise anything: the caller answers with a sentence."""

    identity: str  # with which a later process continues it

    def log(self, version: int, time: float, scalars: Mapping[str, float]) -> None:
        """Adds the numbers of an outer update. Args: time: in unix seconds."""

    def store(self, files: Sequence[Path]) -> None:
        """Adds files to the tracker's run."""

    def close(self) -> None:
        """Makes everything durable."""


def scalars(record: UpdateRecord) -> dict[str, float]:
    """The finite numbers of an outer update, by name."""
    found = {
        "loss": record.loss,
        "loss_plus": record.loss_plus,
        "loss_minus": record.loss_minus,
        "samples": record.samples,
        "inner_steps": record.inner_steps,
        "window_mean": record.windows.mean,
        "staleness_mean": record.staleness.mean,
        "staleness_max": record.staleness.max,
        "diverged": record.diverged,
        "finished": record.finished,
        "workers_seen": record.workers_seen,
        "weight_rp_mean": record.weight_rp.mean,
        "var_rp_median": record.var_rp.q50,
        "var_es_median": record.var_es.q50,
        "rp_nonfinite": record.rp_nonfinite,
        "gradient_norm": record.norms.gradient,
        "update_norm": record.norms.update,
        "theta_norm": record.norms.theta,
        "clipped": record.clipped,
        "seconds": record.seconds,
        "core_seconds": record.core_seconds,
        **{f"loss_{name}": family.loss for name, family in record.families.items()},
    }
    return {name: float(value) for name, value in found.items() if value is not None and math.isfinite(value)}
