"""Moving averages of one tensor's gradients, with second moments factored into rows and columns as in Adafactor.

The families of Metz et al. 2022 (arXiv 2203.11860) read them. Rows and columns are the two largest axes of the tensor
(the later one of equals is the larger); further axes are kept. Needs jax only.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from common.optimizer.tensor_rule import average


class Averages(NamedTuple):
    """The averages of a tensor of n numbers, at the decays of each."""

    momentum: jax.Array  # [3, ...] of g
    rms: jax.Array  # [1, ...] of g^2
    rows: jax.Array  # [3, ...] of the mean of g^2 over the largest axis, which has size 1; of g^2 for ranks below two
    columns: Any  # [3, ...] of the mean over the second largest axis, which has size 1; None for ranks below two


class Decays(NamedTuple):
    """The decays of the averages; those of second moments are in [0, 1]."""

    momentum: jax.Array  # [3]
    rms: jax.Array  # [1]
    factored: jax.Array  # [3]


def largest_axes(shape: tuple[int, ...]) -> tuple[int, int] | None:
    """The second largest and the largest axis of a tensor, None for ranks below two."""
    order = sorted(range(len(shape)), key=shape.__getitem__)
    return (order[-2], order[-1]) if len(shape) > 1 else None


def start(zeros: jax.Array) -> Averages:
    """The averages before the first gradient."""

    def of(count: int, axis: int | None) -> jax.Array:
        along = zeros if axis is None else jnp.sum(zeros, axis, keepdims=True)
        return jnp.broadcast_to(along[None], (count, *along.shape))

    axes = largest_axes(zeros.shape)
    columns = None if axes is None else of(3, axes[0])
    return Averages(of(3, None), of(1, None), of(3, None if axes is None else axes[1]), columns)


def updated(old: Averages, g: jax.Array, decays: Decays) -> Averages:
    """The averages after a gradient g [...]."""
    square = (g * g)[None]
    floored = square + 1e-30  # as Adafactor: a row without gradients has a finite inverse
    momentum = average(old.momentum, g[None], decays.momentum)
    rms = average(old.rms, square, decays.rms)
    axes = largest_axes(g.shape)
    if axes is None:
        return Averages(momentum, rms, average(old.rows, floored, decays.factored), None)
    rows, columns = (jnp.mean(floored, axis + 1, keepdims=True) for axis in (axes[1], axes[0]))
    return Averages(
        momentum, rms, average(old.rows, rows, decays.factored), average(old.columns, columns, decays.factored)
    )


def preconditioner(averages: Averages, shape: tuple[int, ...]) -> jax.Array:
    """[3, ...] factor of a gradient: the inverse root of its second moment, reconstructed from rows and columns."""
    axes = largest_axes(shape)
    if axes is None:
        return _inverse_root(averages.rows + 1e-9)
    mean = jnp.mean(averages.rows, axes[0] + 1, keepdims=True)
    return _inverse_root(averages.rows / (mean + 1e-9)) * _inverse_root(averages.columns)


def _inverse_root(x: jax.Array) -> jax.Array:
    return jax.lax.rsqrt(jnp.maximum(x, 1e-9))
