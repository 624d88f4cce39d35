"""The unroll engine: compiled unrolls of any length, and the outer gradient through them.

The length of an unroll is data, not a compile-time constant: the unroll is split into segments of at most `segment`
steps, each one call of a compiled loop with a dynamic trip count. The reverse pass runs segment by segment over the
tapes of the forward pass. Tapes that do not fit into `KEPT_BYTES` are dropped and recomputed from the state at the
segment's boundary.
"""

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from common.optimizer import Family
from common.task import TaskFamily
from workers import segment as segments
from workers.inner_step import InnerState, InnerStep, OuterLoss, Problem
from workers.segment import Cotangent, Segment, Tape

KEPT_BYTES = (
    192 * 2**20
)  # for boundary states and tapes: every tape of 500 steps of the paper's network, one tape of 10,000 steps
ACTIVATION_BYTES = KEPT_BYTES // 3  # of one segment, at most; more are recomputed by the reverse pass

Compiler = Callable[..., Any]  # (name, function, donated arguments) -> the compiled function, as `jitted`


def jitted(name: str, function: Callable[..., Any], donated: tuple[int, ...] = ()) -> Any:
    """The function compiled by JAX when it is called. Args: name: for those that keep functions."""
    return jax.jit(function, donate_argnums=donated)


class Unroll:
    """Compiled unrolls of one task family under one family of optimizers.

    A window of any length needs two compilations, one forward and one reverse. Evaluation and baselines, which train
    inner problems without an outer gradient, call `forward`.

    >>> import numpy as np, jax
    >>> from common.config import OptimizerConfig, TaskConfig
    >>> from common.optimizer import make_family
    >>> from common.task import quadratic
    >>> task = quadratic(TaskConfig(family="quadratic"))
    >>> family = make_family(OptimizerConfig(family="sgd", learning_rate=0.1))
    >>> unroll = Unroll(task, family, OuterLoss(), segment=10)
    >>> problem = Problem(task.sample(np.random.default_rng(0), "outer_train"), jax.random.key(0))
    >>> state, theta = unroll.start(problem, jax.random.key(1)), family.init(jax.random.key(2))
    >>> losses, state = unroll.forward(theta, problem, state, steps=25)
    >>> losses.shape, int(state.step), bool(losses[-1] < losses[0])
    ((25,), 25, True)
    >>> losses, gradient, state = unroll.losses_and_grad(theta, problem, state, steps=5)
    >>> gradient.shape, int(state.step)
    ((2,), 30)
    """

    def __init__(
        self, task: TaskFamily, family: Family, outer_loss: OuterLoss, segment: int, compiled: Compiler = jitted
    ):
        """`segment` is the number of steps of one compiled loop, `WorkersConfig.segment`."""
        self.task, self.outer_loss, self.segment = task, outer_loss, segment
        self.step = InnerStep(task, family, outer_loss)
        self.start = compiled("start", self.step.start)
        self.reported = family.reported if family.evaluated is None else jax.jit(family.reported)
        self._forward = compiled("forward", partial(segments.forward, self.step, segment))
        self._on_tape = compiled("on_tape", partial(segments.forward_on_tape, self.step), (4,))
        self._reverse = compiled("reverse", partial(segments.reverse, self.step))
        self._rows = compiled("rows", partial(segments.activation_rows, self.step))
        self._blank: list[Tape] = []
        self._activations: dict[Any, list[jax.ShapeDtypeStruct]] = {}  # on a tape, by dtype: tracing them takes time

    def forward(
        self, theta: jax.Array, problem: Problem, state: InnerState, steps: int
    ) -> tuple[np.ndarray, InnerState]:
        """The outer losses [steps] float32 after each of the next `steps` updates, and the state after them."""
        losses = []
        for n in self._lengths(steps):
            state, loss = self._forward(theta, problem, state, n)
            losses.append((loss, n))
        return np.concatenate([np.asarray(loss)[:n] for loss, n in losses]), state

    def losses_and_grad(
        self, theta: jax.Array, problem: Problem, state: InnerState, steps: int
    ) -> tuple[np.ndarray, np.ndarray, InnerState]:
        """`forward` with the gradient [P] of the mean of the losses, or of the last one, with respect to theta, as the second result."""
        losses, cotangent, state = self.losses_and_cotangent(theta, problem, state, steps)
        return losses, np.asarray(cotangent.theta), state

    def losses_and_cotangent(
        self, theta: jax.Array, problem: Problem, state: InnerState, steps: int
    ) -> tuple[np.ndarray, Cotangent, InnerState]:
        """`losses_and_grad` with the derivatives with respect to the initial state too, for `pull_back`."""
        lengths = self._lengths(steps)
        losses, boundaries = [], []
        tapes: deque[Tape] = deque()
        for n in lengths:
            boundaries.append(state)
            if tapes and len(tapes) == self._tapes_kept(state, tapes[0], len(lengths)):
                self._blank.append(tapes.popleft())  # recomputed by the reverse pass
            state, loss, tape = self._on_tape(theta, problem, state, n, self._blank_tape(problem, state))
            losses.append(loss)
            tapes.append(tape)
        cotangent = segments.zero_cotangent(theta, state)
        weights = (
            [1.0 / steps] * len(lengths) if self.outer_loss.reduction == "mean" else [0.0] * (len(lengths) - 1) + [1.0]
        )
        for n, boundary in zip(reversed(lengths), reversed(boundaries)):
            if not tapes:
                tapes.append(self._on_tape(theta, problem, boundary, n, self._blank_tape(problem, boundary))[2])
            segment = Segment(boundary, tapes.pop(), n, weights.pop())
            cotangent = self._reverse(theta, problem, segment, cotangent)
            self._blank.append(segment.tape)
        joined = np.concatenate([np.asarray(loss)[:n] for loss, n in zip(losses, lengths)])
        return joined, cotangent, state

    def pull_back(
        self, theta: jax.Array, problem: Problem, state: InnerState, steps: int, cotangent: Cotangent
    ) -> Cotangent:
        """The reverse pass over steps that have been unrolled before, whose own losses do not count.

        Costs as much as `losses_and_grad`: their tapes are recomputed from the state at their start.

        Args:
          state: at their start.
          cotangent: of the state after them.

        Returns:
          the cotangent of `state`; what the steps contribute is added to its gradient with respect to theta.
        """
        lengths, starts = self._lengths(steps), [state]
        for n in lengths[:-1]:
            state, _ = self._forward(theta, problem, state, n)
            starts.append(state)
        for n, start in zip(reversed(lengths), reversed(starts)):
            tape = self._on_tape(theta, problem, start, n, self._blank_tape(problem, start))[2]
            cotangent = self._reverse(theta, problem, Segment(start, tape, n, 0.0), cotangent)
            self._blank.append(tape)
        return cotangent

    def _blank_tape(self, problem: Problem, state: InnerState) -> Tape:
        """A tape that may be overwritten. Tapes are reused: the pages of new memory cost a tenth of a step."""
        dtype = jnp.result_type(*jax.tree.leaves(state.w))
        if self._blank and self._blank[-1].w.dtype == dtype:
            return self._blank.pop()
        self._blank.clear()
        if dtype not in self._activations:
            self._activations[dtype] = self._activations_kept(problem, state)
        return segments.zero_tape(self.segment, state, self._activations[dtype])

    def _activations_kept(self, problem: Problem, state: InnerState) -> list[jax.ShapeDtypeStruct]:
        """What a tape keeps of one step's activations; nothing where those of a segment do not fit."""
        shapes: list[jax.ShapeDtypeStruct] = []
        if self.task.state is None:
            shapes = self._rows.eval_shape(problem, state.w, state.step)
        return shapes if self.segment * _nbytes(shapes) <= ACTIVATION_BYTES else []

    def compilations(self, theta_size: int, problem: Problem, key: jax.Array) -> dict[str, Callable[[], Any]]:
        """The compiled functions of a truncation by name, as calls that run no step; slowest to compile first."""
        theta = jnp.zeros(theta_size, jnp.float32)
        state = jax.tree.map(_zeros, self.start.eval_shape(problem, key))
        cotangent, tape = segments.zero_cotangent(theta, state), partial(self._blank_tape, problem, state)
        return {
            "reverse": lambda: self._reverse(theta, problem, Segment(state, tape(), 0, 1.0), cotangent),
            "on_tape": lambda: self._on_tape(theta, problem, state, 0, tape()),
            "start": lambda: self.start(problem, key),
            "forward": lambda: self._forward(theta, problem, state, 0),
        }

    def _tapes_kept(self, state: InnerState, tape: Tape, boundaries: int) -> int:
        return max(1, (KEPT_BYTES - boundaries * _nbytes((state.w, state.optimizer, state.gradient))) // _nbytes(tape))

    def _lengths(self, steps: int) -> list[int]:
        return [min(self.segment, steps - done) for done in range(0, steps, self.segment)]


def _nbytes(tree: Any) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _zeros(shape: jax.ShapeDtypeStruct) -> jax.Array:
    return jnp.zeros(shape.shape, shape.dtype)
