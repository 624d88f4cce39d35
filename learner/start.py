"""Starting a learner on a run directory: take the next epoch, go on from the newest checkpoint, or from theta."""

import logging
from pathlib import Path
from typing import Any

import numpy as np

from common.config import Config
from common.errors import UserError
from learner import checkpoints, epoch
from learner.learner import DEFAULTS, Learner, Surroundings
from learner.outer import optimizer
from learner.store import Store

log = logging.getLogger(__name__)


def open_learner(
    run: Path,
    config: Config,
    digest: str,
    theta: np.ndarray,
    segments: np.ndarray,
    around: Surroundings = DEFAULTS,
) -> tuple[Learner, dict[str, bytes]]:
    """A learner that goes on where the run stands, and what was kept beside its checkpoint.

    Args:
      run: an existing run directory.
      digest: of the present configuration and data.
      theta: [P] start of a run that has no checkpoint yet.
      segments: [P] int, which tensor each coordinate belongs to.

    Raises:
      UserError: the checkpoint belongs to another task or network, the configuration names no possible optimizer, or
      the storage cannot be used. The run directory is as it was.
    """
    optimizer(config.outer)
    found = checkpoints.newest(run / "checkpoints", epoch.lineage(run / "epochs"))
    if found is not None:
        _check(found[1], digest, len(theta))
    elif checkpoints.positions(run / "checkpoints"):
        raise UserError(f"no checkpoint of {run} is usable: restore one from a copy, or start a new run")
    try:
        (run / "epochs").mkdir(exist_ok=True)
        number = epoch.claim(run / "epochs", None if found is None else found[0], around.clock())
        store = Store(run, number, config, around.reached)
        learner = Learner(config, digest, theta, segments, store, around)
        beside: dict[str, bytes] = {} if found is None else learner.restore(found[1])
        learner.begin()
    except OSError as error:
        raise UserError(
            f"cannot write in {run} ({error.strerror}): make room or give permission, and start again"
        ) from None
    return learner, beside


def _check(record: dict[str, Any], digest: str, size: int) -> None:
    theta = checkpoints.theta_in(record, "the newest checkpoint")
    if record.get("digest") != digest or len(theta) != size:
        raise UserError(
            "the run was started with another task, dataset, optimizer, estimator or curriculum: use the run's own configuration and data, or start a new run"
        )
