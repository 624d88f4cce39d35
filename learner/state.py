"""The learner's state and the pure outer update: merge, clip, optimizer step, version + 1."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from common.config import Config
from common.messages import GradientSample
from common.moments import Moments
from learner import rp_skipping
from learner.deduplication import Deduplicator
from learner.merge import FLOOR, Merged, Rule, merge
from learner.outer_optimizer import OuterOptimizer, Step, from_leaves, leaves


class State(NamedTuple):
    """Everything that decides the next update, apart from the samples."""

    version: int
    theta: np.ndarray  # [P] float32
    outer: Any  # optax state
    skipping: rp_skipping.SkippingState | None  # None: every sample computes rp


def initial(config: Config, theta: np.ndarray, optimizer: OuterOptimizer) -> State:
    """The state of version 0, with theta [P]."""
    theta = np.asarray(theta, np.float32)
    skips = config.estimator.use == "merged" and config.estimator.probe_rate < 1
    return State(0, theta, optimizer.init(theta), rp_skipping.start(len(theta)) if skips else None)


def merge_batch(state: State, samples: Sequence[GradientSample], rule: Rule) -> Merged:
    """The gradient of a batch whose samples are sorted by name."""
    past = None
    if state.skipping is not None and rp_skipping.is_sparse(samples):
        past = rp_skipping.past_variance(state.skipping)
    return merge(samples, rule, past)


def advance(state: State, merged: Merged, optimizer: OuterOptimizer) -> tuple[State, Step]:
    """One outer update. A step that leaves the range of float32 is rejected: the version grows, theta stays."""
    step = optimizer.step(merged.gradient, state.outer, state.theta)
    past = None if state.skipping is None else rp_skipping.observe(state.skipping, merged.rp, merged.es, FLOOR)
    return State(state.version + 1, step.theta, step.outer, past), step


def probe_rate(state: State, config: Config) -> float:
    """Fraction of samples that compute rp now."""
    return 1.0 if state.skipping is None else rp_skipping.rate(state.skipping, config.estimator.probe_rate)


def to_record(
    epoch: int, digest: str, state: State, taken: Deduplicator, auxiliary: Mapping[str, bytes]
) -> dict[str, Any]:
    """The record of a checkpoint, for `common.checkpoint.save`.

    Args:
      digest: of the configuration and the data.
      taken: the names of the accepted samples.
      auxiliary: what the caller stores alongside, such as trajectories.
    """
    past = state.skipping
    return {
        "kind": "checkpoint",
        "epoch": epoch,
        "version": state.version,
        "digest": digest,
        "theta": state.theta,
        "outer": leaves(state.outer),
        "probing": None if past is None else [*past.older, *past.newer, list(past.recent)],
        "ledger": taken.dump(),
        "beside": dict(auxiliary),
    }


def from_record(record: Mapping[str, Any], fresh: State) -> tuple[State, bool]:
    """The recorded state, and whether its optax state belongs to the configured outer optimizer.

    Args:
      record: of `to_record`.
      fresh: the initial state under the present configuration; its optax state is used where the recorded one does
        not fit.
    """
    outer = from_leaves(record["outer"], fresh.outer)
    past = fresh.skipping
    if past is not None and record["probing"] is not None:
        *numbers, recent = record["probing"]
        past = rp_skipping.SkippingState(Moments(*numbers[:3]), Moments(*numbers[3:]), tuple(recent))
    theta = np.array(record["theta"], np.float32)
    return State(record["version"], theta, fresh.outer if outer is None else outer, past), outer is not None
