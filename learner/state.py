"""What the learner has learned, and the pure outer update: merge, clip, optimizer, version + 1."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from common.config import Config
from common.messages import GradientSample
from learner import rp_skipping as probing
from learner.merge import FLOOR, Merged, Rule, merge
from learner.outer_optimizer import OuterOptimizer, Step


class State(NamedTuple):
    """Everything that decides the next update, apart from the samples."""

    version: int
    theta: np.ndarray  # [P] float32
    outer: Any  # optax state
    probing: probing.Probing | None  # None: every sample computes rp


def initial(config: Config, theta: np.ndarray, optimizer: OuterOptimizer) -> State:
    theta = np.asarray(theta, np.float32)
    sparse = config.estimator.use == "merged" and config.estimator.probe_rate < 1
    return State(0, theta, optimizer.init(theta), probing.start(len(theta)) if sparse else None)


def rule_of(config: Config, segments: np.ndarray) -> Rule:
    estimator = config.estimator
    return Rule(estimator.use, estimator.merge, estimator.cross_fit, np.asarray(segments, int))


def merge_batch(state: State, samples: Sequence[GradientSample], rule: Rule) -> Merged:
    """The gradient of a batch that stands in the order of its names."""
    past = None
    if state.probing is not None and probing.is_sparse(samples):
        past = probing.past_variance(state.probing)
    return merge(samples, rule, past)


def advance(state: State, merged: Merged, optimizer: OuterOptimizer) -> tuple[State, Step]:
    """One outer update. A step that leaves float32 is refused: the version grows, theta stays."""
    step = optimizer.step(merged.gradient, state.outer, state.theta)
    past = None if state.probing is None else probing.observe(state.probing, merged.rp, merged.es, FLOOR)
    return State(state.version + 1, step.theta, step.outer, past), step


def probe_rate(state: State, config: Config) -> float:
    """Share of samples that compute rp now."""
    return 1.0 if state.probing is None else probing.rate(state.probing, config.estimator.probe_rate)
