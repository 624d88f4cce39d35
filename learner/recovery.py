"""Starting a learner on a run directory: take the next epoch, go on from the newest checkpoint, or from theta."""

import logging
from pathlib import Path
from typing import Any

import numpy as np

from common.config import Config
from common.errors import UserError
from learner import checkpoints, lineage, record
from learner.deduplication import Ledger
from learner.learner import Learner, Surroundings
from learner.lineage import Position
from learner.outer_optimizer import OuterOptimizer
from learner.state import State, initial
from learner.store import Store

log = logging.getLogger(__name__)
ALONE = Surroundings()


def open_learner(
    run: Path,
    config: Config,
    digest: str,
    theta: np.ndarray,
    segments: np.ndarray,
    around: Surroundings = ALONE,
) -> tuple[Learner, dict[str, bytes]]:
    """A learner that goes on where the run stands, and what was kept beside its checkpoint.

    Args:
      run: an existing run directory.
      digest: of the present configuration and data (common.config.digest).
      theta: [P] start of a run that has no checkpoint yet.
      segments: [P] int, which tensor each coordinate belongs to.

    Raises:
      UserError: the checkpoint belongs to another task or network, the configuration names no possible optimizer, or
      the storage cannot be used. What the run directory held is as it was.
    """
    fresh = initial(config, theta, OuterOptimizer(config.outer))
    found = _newest(run, digest, len(fresh.theta))
    state, ledger, beside = fresh, Ledger(), dict[str, bytes]()
    if found is not None:
        state, ledger, beside = _restored(found[1], fresh)
    number = 0
    try:
        number = lineage.claim(run / "epochs", None if found is None else found[0], around.clock())
        store = Store(run, number, config, around.reached)
        learner = Learner(config, digest, segments, state, ledger, store, around)
        store.begin(config, segments, record.make(store.epoch, digest, state, ledger, beside))
    except OSError as error:
        lineage.release(run / "epochs", number)
        raise UserError(
            f"cannot write in {run} ({error.strerror}): make room or give permission, and start again"
        ) from None
    log.info("epoch %d starts at version %d", store.epoch, state.version)
    return learner, beside


def _newest(run: Path, digest: str, size: int) -> tuple[Position, dict[str, Any]] | None:
    found = checkpoints.newest(run / "checkpoints", lineage.lineage(run / "epochs"))
    if found is None:
        if checkpoints.positions(run / "checkpoints"):
            raise UserError(f"no checkpoint of {run} is usable: restore one from a copy, or start a new run")
        return None
    theta = record.theta_in(found[1], "the newest checkpoint")
    if found[1].get("digest") != digest or len(theta) != size:
        raise UserError(
            f"{run} was started with another task, dataset, optimizer, estimator or curriculum: use the run's own configuration and data, or start a new run"
        )
    return found


def _restored(found: dict[str, Any], fresh: State) -> tuple[State, Ledger, dict[str, bytes]]:
    state, fitted = record.state_in(found, fresh)
    if not fitted:
        log.warning("outer.optimizer is another one than in the checkpoint: its state starts afresh")
    return state, Ledger.load(found["ledger"]), dict(found["beside"])
