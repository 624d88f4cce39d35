"""What a checkpoint holds: state, names of samples taken, and what the caller keeps beside them."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from common.checkpoint import Damaged
from common.moments import Moments
from learner.deduplication import Ledger
from learner.outer_optimizer import from_leaves, leaves
from learner.rp_skipping import Probing
from learner.state import State


def make(epoch: int, digest: str, state: State, ledger: Ledger, beside: Mapping[str, bytes]) -> dict[str, Any]:
    """A record for `common.checkpoint.save`."""
    past = state.probing
    return {
        "kind": "checkpoint",
        "epoch": epoch,
        "version": state.version,
        "digest": digest,
        "theta": state.theta,
        "outer": leaves(state.outer),
        "probing": None if past is None else [*past.older, *past.newer, list(past.recent)],
        "ledger": ledger.dump(),
        "beside": dict(beside),
    }


def state_in(record: Mapping[str, Any], fresh: State) -> tuple[State, bool]:
    """The recorded state, and whether the outer optimizer's part fitted; if not, it starts afresh.

    Args:
      record: of `make`.
      fresh: the initial state under the present configuration.
    """
    outer = from_leaves(record["outer"], fresh.outer)
    past = fresh.probing
    if past is not None and record["probing"] is not None:
        *numbers, recent = record["probing"]
        past = Probing(Moments(*numbers[:3]), Moments(*numbers[3:]), tuple(recent))
    theta = np.array(record["theta"], np.float32)
    return State(record["version"], theta, fresh.outer if outer is None else outer, past), outer is not None


def theta_in(record: Any, name: str) -> np.ndarray:
    """Theta [P] float32 of a checkpoint. Raises Damaged."""
    theta = record.get("theta") if isinstance(record, dict) else None
    if not isinstance(theta, np.ndarray) or theta.dtype != np.float32 or theta.ndim != 1:
        raise Damaged(f"{name} holds no parameters of an optimizer: give a checkpoint")
    return theta
