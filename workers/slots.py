"""The trajectories of a worker: S of each family of tasks, begun when they are first needed, and kept in checkpoints."""

import io
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from common.config import EstimatorConfig
from workers.estimators import PastWindow, Perturbation, Truncation
from workers.trajectory import Trajectory
from workers.unroll import InnerState


class Slots:
    """Trajectories by slot. Family k has the slots k S .. k S + S - 1.

    Args:
      begin: (slot, number) -> inner problem `number` of a slot.
      estimator: has S, and the sigma of the past truncations.
    """

    def __init__(self, begin: Callable[[int, int], Trajectory], estimator: EstimatorConfig):
        self._begin, self._pairs, self._sigma = begin, estimator.pairs, estimator.sigma
        self._held: dict[int, Trajectory] = {}

    def family(self, slot: int) -> int:
        """The family that a slot belongs to."""
        return slot // self._pairs

    def of(self, family: int) -> list[Trajectory]:
        """The trajectories [S] of a family."""
        slots = range(family * self._pairs, (family + 1) * self._pairs)
        for slot in slots:
            if slot not in self._held:
                self._held[slot] = self._begin(slot, 1)
        return [self._held[slot] for slot in slots]

    def put(self, trajectory: Trajectory) -> None:
        """Replaces the trajectory of the same slot."""
        self._held[trajectory.slot] = trajectory

    def dump(self, sequence: int) -> bytes:
        """The state from which `load` resumes bit for bit; tasks are not part of it, their numbers reproduce them.

        Args:
          sequence: of the worker's next sample.
        """
        arrays: dict[str, Any] = {"sequence": np.int64(sequence)}
        for slot, trajectory in sorted(self._held.items()):
            arrays[f"{slot}.number"] = np.int64(trajectory.number)
            arrays[f"{slot}.noise"] = trajectory.noise
            _put(arrays, f"{slot}", trajectory.plus, trajectory.minus)
            for k, ((theta, noise, _), before) in enumerate(trajectory.past):
                arrays.update({f"{slot}.past.{k}.theta": theta, f"{slot}.past.{k}.noise": noise})
                arrays[f"{slot}.past.{k}.steps"] = np.int64(before.steps)
                _put(arrays, f"{slot}.past.{k}", before.plus, before.minus)
        file = io.BytesIO()
        np.savez(file, **arrays)
        return file.getvalue()

    def load(self, data: bytes) -> int:
        """Takes the trajectories of a dump, and returns its sequence number."""
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            self._held.clear()  # none before the first sample
            for slot in sorted(int(name.removesuffix(".number")) for name in arrays if name.endswith(".number")):
                fresh = self._begin(slot, int(arrays[f"{slot}.number"]))
                plus, minus = _taken(arrays, f"{slot}", fresh)
                noise, past = arrays[f"{slot}.noise"], self._past(arrays, fresh)
                self._held[slot] = fresh._replace(plus=plus, minus=minus, noise=noise, past=past)
            return int(arrays["sequence"])

    def _past(self, arrays: Mapping[str, Any], fresh: Trajectory) -> tuple[PastWindow, ...]:
        """The past truncations of a trajectory, whose inner problem begins as `fresh`."""
        past: list[PastWindow] = []
        while f"{fresh.slot}.past.{len(past)}.steps" in arrays:
            name = f"{fresh.slot}.past.{len(past)}"
            draw = Perturbation(arrays[f"{name}.theta"], arrays[f"{name}.noise"], self._sigma)
            states = _taken(arrays, name, fresh)
            past.append(PastWindow(draw, Truncation(fresh.problem, *states, int(arrays[f"{name}.steps"]))))
        return tuple(past)


def _put(arrays: dict[str, Any], name: str, plus: InnerState, minus: InnerState) -> None:
    for k, leaf in enumerate(jax.tree.leaves((plus, minus))):
        arrays[f"{name}.{k}"] = np.asarray(jax.random.key_data(leaf) if _is_key(leaf) else leaf)


def _taken(arrays: Mapping[str, Any], name: str, like: Trajectory) -> tuple[InnerState, InnerState]:
    """The states that `_put` was given; `like` has states of the same structure."""
    leaves, tree = jax.tree.flatten((like.plus, like.minus))
    plus, minus = jax.tree.unflatten(tree, [_as(arrays[f"{name}.{k}"], x) for k, x in enumerate(leaves)])
    return plus, minus


def _as(saved: np.ndarray, like: jax.Array) -> jax.Array:
    if _is_key(like):
        return jax.random.wrap_key_data(jax.numpy.asarray(saved), impl=jax.random.key_impl(like))
    return jax.numpy.asarray(saved.view(like.dtype))


def _is_key(leaf: jax.Array) -> bool:
    """Whether it is a random key, which a model's state may hold."""
    return jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key)
