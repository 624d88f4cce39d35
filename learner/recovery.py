"""Starts a learner on a run directory: claims the next epoch, and resumes from the newest checkpoint, or from theta."""

import logging
from pathlib import Path
from typing import Any

import numpy as np

from common.config import Config
from common.errors import UserError
from common.files import explain
from common.messages import theta_sha256
from learner import checkpoints, lineage
from learner.deduplication import Deduplicator
from learner.history import read_history
from learner.hooks import NO_HOOKS, Hooks
from learner.learner import Learner, Setup
from learner.lineage import Position
from learner.outer_optimizer import OuterOptimizer
from learner.state import State, from_record, initial, to_record
from learner.store import Store

log = logging.getLogger(__name__)


def open_learner(
    run: Path,
    config: Config,
    digest: str,
    theta: np.ndarray,
    segments: np.ndarray,
    hooks: Hooks = NO_HOOKS,
) -> tuple[Learner, dict[str, bytes]]:
    """A learner that resumes where the run stands, and the auxiliary data of its checkpoint.

    Args:
      run: an existing run directory.
      digest: of the present configuration and data (common.config.digest).
      theta: [P] start of a run that has no checkpoint yet.
      segments: [P] int, which tensor each coordinate belongs to.

    Raises:
      UserError: the checkpoint belongs to another task or network, the configuration names no possible optimizer, or
      the storage cannot be used. The run directory is left as it was.
    """
    fresh = initial(config, theta, OuterOptimizer(config.outer))
    found = _newest(run, digest, len(fresh.theta))
    state, taken, auxiliary = fresh, Deduplicator(), dict[str, bytes]()
    if found is not None:
        state, taken, auxiliary = _restored(found[1], fresh)
        if "inner_steps" not in found[1]:  # an earlier format
            before = [r for r in read_history(run) if r.version <= state.version]
            state = state._replace(inner_steps=sum(r.inner_steps for r in before))
    epoch = 0
    try:
        epoch = lineage.claim(run / "epochs", None if found is None else found[0], hooks.clock(), _sha256(theta, found))
        store = Store(run, epoch, config, hooks)
        store.begin(config, segments, to_record(epoch, digest, state, taken, auxiliary))
    except OSError as error:
        lineage.release(run / "epochs", epoch)
        raise UserError(f"cannot write in {run} ({error.strerror or error}): {explain(error)}") from None
    log.info("epoch %d starts at version %d", epoch, state.version)
    return Learner(Setup(config, digest, segments), state, taken, store, hooks), auxiliary


def _newest(run: Path, digest: str, size: int) -> tuple[Position, dict[str, Any]] | None:
    found = checkpoints.newest(run / "checkpoints", lineage.lineage(run / "epochs"))
    if found is None:
        if checkpoints.positions(run / "checkpoints"):
            raise UserError(f"no checkpoint of {run} is usable: restore one from a copy, or start a new run")
        return None
    theta = checkpoints.theta_in(found[1], str(checkpoints.path_of(run / "checkpoints", found[0])))
    if found[1].get("digest") != digest or len(theta) != size:
        raise UserError(
            f"{run} was started with another task, dataset, optimizer, estimator or curriculum: use the run's own configuration and data, or start a new run"
        )
    return found


def _restored(record: dict[str, Any], fresh: State) -> tuple[State, Deduplicator, dict[str, bytes]]:
    state, fits = from_record(record, fresh)
    if not fits:
        log.warning("outer.optimizer differs from that of the checkpoint: its state is initialised again")
    return state, Deduplicator.load(record["ledger"]), dict(record["beside"])


def _sha256(theta: np.ndarray, found: Any) -> str | None:
    """Of the theta that a run begins with; None where it resumes."""
    return theta_sha256(theta) if found is None else None
