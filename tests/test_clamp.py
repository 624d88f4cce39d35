"""The clamp: exact values and derivatives below it, zero derivatives at it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from workers.clamp import clamped_gradient, clamped_loss


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize("w, inside", [(1.0, True), (1.9, True), (2.0, False), (3.0, False), (np.inf, False)])
def test_loss_beyond_the_clamp_has_zero_derivatives(w, inside, x64):
    loss = lambda w, batch: batch * w**3  # noqa: E731  8 at w = 2
    plain = jax.value_and_grad(lambda w: clamped_loss(loss, 8.0)(w, jnp.float64(1.0)))(jnp.float64(w))
    assert plain == ((w**3, 3 * w**2) if inside else (8.0, 0.0))
    function = clamped_gradient(loss, 8.0)
    value_and_slope = lambda w: function(w, jnp.float64(1.0))  # noqa: E731
    (value, gradient), (change, product) = jax.jvp(value_and_slope, (jnp.float64(w),), (jnp.float64(2.0),))
    assert value == (w**3 if inside else 8.0) and gradient == (3 * w**2 if inside else 0.0)
    assert (change, product) == pytest.approx((2.0 * 3 * w**2, 2.0 * 6 * w) if inside else (0.0, 0.0))


@pytest.mark.parametrize(
    "loss",
    [lambda w, b: jnp.log(w - b), lambda w, b: jnp.sqrt(w - b), lambda w, b: w / (w - w), lambda w, b: jnp.log(0 * w)],
)
def test_non_finite_loss_counts_as_clamp_without_gradient(loss, x64):
    assert jax.value_and_grad(clamped_loss(loss, 8.0))(jnp.float64(1.0), jnp.float64(2.0)) == (8.0, 0.0)
    function = lambda w: clamped_gradient(loss, 8.0)(w, jnp.float64(2.0))  # noqa: E731
    result, derivative = jax.jvp(function, (jnp.float64(1.0),), (jnp.float64(2.0),))
    assert result == (8.0, 0.0) and derivative == (0.0, 0.0)


def test_clamped_gradient_has_exact_hessian_products(x64):
    random = np.random.default_rng(0)
    w, v = jnp.asarray(random.normal(size=(2, 5)))
    loss = lambda w, batch: jnp.sum(batch * w**3) + jnp.prod(w)  # noqa: E731
    batch = jnp.asarray(random.normal(size=5))

    @jax.jit
    def product(w):
        return jax.jvp(lambda w: clamped_gradient(loss, 1e3)(w, batch), (w,), (v,))[1][1]

    want = jax.jit(lambda w: jax.hessian(loss)(w, batch) @ v)(w)
    np.testing.assert_allclose(product(w), want, rtol=1e-12)
