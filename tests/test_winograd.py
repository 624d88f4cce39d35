"""Winograd's convolution equals XLA's: values, gradients and their derivatives in float64, rounding in float32."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from common.networks import conv, winograd
from tests.test_conv import assert_close


def reference(x, kernel):
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("CHWN", "HWIO", "CHWN"))


def tiled(x, kernel):
    return winograd.from_tiles(winograd.convolve(winograd.to_tiles(x), kernel))


def problem(height, width, channels, units, dtype=jnp.float64):
    rng = np.random.default_rng(0)
    shapes = (channels, height, width, 2), (3, 3, channels, units), (units, height, width, 2)
    return [jnp.asarray(rng.standard_normal(shape), dtype) for shape in shapes]


@pytest.mark.parametrize("shape", [(8, 5, 3, 4), (4, 1, 2, 3)])
def test_winograd_and_derivatives_equal_xla_convolution(shape):
    with jax.enable_x64(True):
        x, kernel, dy = problem(*shape)

        def derivatives(function):
            def pulled(x, kernel):
                y, pull = jax.vjp(function, x, kernel)
                return y, pull(y * dy)  # quadratic, so that every product has a derivative

            return jax.jvp(pulled, (x, kernel), (jnp.cos(x), jnp.sin(kernel)))

        assert_close(*(jax.jit(derivatives, static_argnums=0)(f) for f in (tiled, reference)), 1e-10)


def test_winograd_rounds_at_most_three_times_as_much():
    x, kernel, dy = problem(16, 16, 32, 32, jnp.float32)

    @partial(jax.jit, static_argnums=0)
    def outputs(function, x, kernel, dy):
        y, pull = jax.vjp(function, x, kernel)
        return y, *pull(dy)

    def errors(function):
        found = outputs(function, x, kernel, dy)
        return [np.linalg.norm(np.asarray(a, np.float64) - e) for a, e in zip(found, exact)]

    with jax.enable_x64(True):
        exact = [np.asarray(a) for a in outputs(reference, *(np.asarray(a, np.float64) for a in (x, kernel, dy)))]
    ratios = np.divide(errors(tiled), errors(conv._split_convolution))
    assert ratios.max() < 3, ratios


def test_tile_order_gathers_every_fourth_row():
    x = jnp.arange(8).reshape(1, 8, 1, 1)
    order = winograd.to_tiles(x)
    assert order.ravel().tolist() == [0, 4, 1, 5, 2, 6, 3, 7]
    assert winograd.from_tiles(order).ravel().tolist() == list(range(8))
