"""The learner's state and the pure outer update: merge, clip, optimizer step, version + 1."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from common.config import Config, OuterConfig
from common.inverse_variance import FLOOR
from common.messages import GradientSample
from common.update_record import Allocation
from learner import rp_skipping, running
from learner.deduplication import Deduplicator
from learner.merge import Both, Merged, Rule, merge
from learner.outer_optimizer import OuterOptimizer, Step, at_version, from_leaves, leaves, structure
from learner.running import Running


class State(NamedTuple):
    """Everything that decides the next update, apart from the samples."""

    version: int
    theta: np.ndarray  # [P] float32
    outer: Any  # optax state
    skipping: rp_skipping.SkippingState | None  # None: every sample computes rp
    past: tuple[Running, Running] | None = None  # of rp and es; None: a batch is weighted by its own variances
    inner_steps: int = 0  # of all applied samples


def initial(config: Config, theta: np.ndarray, optimizer: OuterOptimizer) -> State:
    """The state of version 0, with theta [P]."""
    theta = np.asarray(theta, np.float32)
    unbiased = config.estimator.use == "merged" and config.estimator.es == "persistent"
    size, families = len(theta), [member.name for member in config.members]
    past = (running.start(size, families),) * 2 if unbiased else None
    return State(0, theta, optimizer.init(theta), rp_skipping.of(config, size), past)


def merge_batch(state: State, samples: Sequence[GradientSample], rule: Rule) -> Merged:
    """The gradient of a batch whose samples are sorted by name."""
    past_rp = past = None
    if state.past is not None:
        past = Both(*map(running.moments, state.past))
    elif state.skipping is not None and (rule.estimator.rp_variance == "recent" or rp_skipping.is_sparse(samples)):
        past_rp = rp_skipping.past(state.skipping)
    return merge(samples, rule, past_rp, past)


def advance(state: State, merged: Merged, optimizer: OuterOptimizer, inner_steps: int = 0) -> tuple[State, Step]:
    """One outer update. A step that leaves the range of float32 is rejected: the version grows, theta stays.

    Args:
      inner_steps: of the batch's samples.
    """
    step = optimizer.step(merged.gradient, state.outer, state.theta)
    skipping, past = state.skipping, state.past
    rp, es = ({name: family[k] for name, family in merged.families.items()} for k in range(2))
    if skipping is not None:
        dense = merged.rp.count == merged.es.count and past is None
        skipping = rp_skipping.observe(skipping, rp, es, FLOOR, merged.weight_rp if dense else None)
    if past is not None:
        past = running.observe(past[0], rp), running.observe(past[1], es)
    steps = state.inner_steps + inner_steps
    return State(state.version + 1, step.theta, step.outer, skipping, past, steps), step


def inner_steps(samples: Sequence[GradientSample]) -> int:
    """Inner steps of a batch; those of a sample that does not say are not counted."""
    return int(sum(s.facts.inner_steps or 0.0 for s in samples))


def finished(state: State, config: OuterConfig) -> bool:
    """Whether the run has ended: by its number of updates, or by its inner steps."""
    return state.version >= config.updates or 0 < config.inner_steps <= state.inner_steps


def probe_rate(state: State, config: Config) -> float:
    """Fraction of samples that compute rp now."""
    return 1.0 if state.skipping is None else rp_skipping.rate(state.skipping, config.estimator.probe_rate)


def ramps(state: State) -> tuple[int, ...]:
    """The update that the curriculum of each family of tasks is at; empty: as many as there were."""
    return () if state.skipping is None or state.skipping.ramp is None else tuple(state.skipping.ramp.at.values())


def allocation(state: State, config: Config) -> Allocation | None:
    """What allocation has decided; None where it is off."""
    if state.skipping is None or state.skipping.least is None:
        return None
    return Allocation(probe_rate(state, config), rp_skipping.worth(state.skipping), state.skipping.least)


def to_record(
    epoch: int, digest: str, state: State, taken: Deduplicator, auxiliary: Mapping[str, bytes]
) -> dict[str, Any]:
    """The record of a checkpoint, for `common.checkpoint.save`.

    Args:
      digest: of the configuration and the data.
      taken: the names of the accepted samples.
      auxiliary: what the caller stores alongside, such as trajectories.
    """
    skipping, past = state.skipping, state.past
    record: dict[str, Any] = {
        "kind": "checkpoint",
        "epoch": epoch,
        "version": state.version,
        "inner_steps": state.inner_steps,
        "digest": digest,
        "theta": state.theta,
        "outer": leaves(state.outer),
        "outer_structure": structure(state.outer),
        "probing": None if skipping is None else [*running.to_record(Running(*skipping[:2])), list(skipping.recent)],
        "ledger": taken.dump(),
        "beside": dict(auxiliary),
    }
    if at := ramps(state):
        record |= {"ramp": list(at)}
    if past is not None:
        record["past"] = [part for one in past for part in running.to_record(one)]
    return record


def from_record(record: Mapping[str, Any], fresh: State) -> tuple[State, bool]:
    """The recorded state, and whether its optax state belongs to the configured outer optimizer.

    Args:
      record: of `to_record`.
      fresh: the initial state under the present configuration; its optax state is used where the recorded one does
        not fit.
    """
    expected = structure(fresh.outer)
    fits = record.get("outer_structure", expected) == expected  # an earlier format has none
    outer = from_leaves(record["outer"], fresh.outer) if fits else None
    skipping, past = fresh.skipping, fresh.past
    if skipping is not None and record["probing"] is not None:
        *parts, recent = record["probing"]
        older, newer = running.from_record(parts)
        skipping = skipping._replace(older=older, newer=newer, recent=tuple(recent))
    if skipping is not None and skipping.ramp is not None:
        skipping = skipping._replace(ramp=rp_skipping.ramp_from_record(record.get("ramp", 0), skipping.ramp))
    if past is not None and "past" in record:
        parts = record["past"]
        half = len(parts) // 2
        past = running.from_record(parts[:half]), running.from_record(parts[half:])
    theta, steps = np.array(record["theta"], np.float32), record.get("inner_steps", fresh.inner_steps)
    used = at_version(fresh.outer, record["version"]) if outer is None else outer
    return State(record["version"], theta, used, skipping, past, steps), outer is not None
