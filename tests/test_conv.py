"""The classifier equals XLA's convolution: values, gradients and Hessian-vector products, in float64."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from common.networks import conv
from common.networks.conv import ConvSpec

PAPER = ConvSpec((32, 32, 3), (32, 32, 32), (2, 1, 1), 10)
SMALL = [
    ConvSpec((8, 8, 3), (5, 4), (2, 1), 4),
    ConvSpec((4, 4, 3), (5, 4), (2, 2), 4),  # down to one pixel
    ConvSpec((7, 9, 1), (3, 4), (1, 2), 3),
    ConvSpec((9, 8, 2), (4, 3, 5, 2), (1, 2, 1, 2), 5),
    ConvSpec((8, 3, 1), (16, 16, 3), (1, 1, 2), 3),  # rows in tile order, and back
]


def reference_loss(spec, w, images, labels):
    x = images.reshape(-1, *spec.image_shape).astype(w["linear/bias"].dtype) / 127.5 - 1
    for i, stride in enumerate(spec.strides):
        kernel = w[f"conv{i}/kernel"]
        dims = ("NHWC", "HWIO", "NHWC")
        x = jax.lax.conv_general_dilated(x, kernel, (stride, stride), "SAME", dimension_numbers=dims)
        x = jax.nn.relu(x + w[f"conv{i}/bias"][None, None, None])
    scores = x.mean((1, 2)) @ w["linear/kernel"] + w["linear/bias"][None]
    return -jnp.take_along_axis(jax.nn.log_softmax(scores), labels[:, None], 1).mean()


def problem(spec, batch=6, dtype=jnp.float64):
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.integers(0, 256, (batch, int(np.prod(spec.image_shape))), np.uint8))
    labels = jnp.asarray(rng.integers(0, spec.classes, batch))
    shapes = {k: a.shape for k, a in jax.eval_shape(partial(conv.init, spec), jax.random.key(1)).items()}
    w = {k: rng.standard_normal(s) * (np.prod(s[:-1]) ** -0.5 if len(s) > 1 else 0.1) for k, s in shapes.items()}
    v = {k: rng.standard_normal(s) for k, s in shapes.items()}
    return *({k: jnp.asarray(a, dtype) for k, a in tree.items()} for tree in (w, v)), images, labels


def assert_close(a, b, tolerance=1e-11):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance), a, b)


@pytest.mark.parametrize("spec", [*SMALL[:2], *(pytest.param(spec, marks=pytest.mark.heavy) for spec in SMALL[2:])])
def test_loss_and_its_derivatives_equal_xla_convolution(spec):
    with jax.enable_x64(True):
        w, v, images, labels = problem(spec)
        outs = []
        for function in (conv.loss, reference_loss):
            value_and_grad = jax.value_and_grad(lambda w, f=function: f(spec, w, images, labels))
            outs.append(jax.jit(lambda w, v, g=value_and_grad: jax.jvp(g, (w,), (v,)))(w, v))
        assert_close(*outs)


def test_logits_are_the_scores_of_the_loss():
    with jax.enable_x64(True):
        w, _, images, labels = problem(SMALL[0])
        scores = jax.jit(partial(conv.logits, SMALL[0]))(w, images)
        assert scores.shape == (6, 4)
        picked = np.take_along_axis(np.asarray(scores), np.asarray(labels)[:, None], 1)[:, 0]
        loss = np.mean(np.log(np.exp(scores).sum(1)) - picked)
        assert_close(loss, jax.jit(partial(reference_loss, SMALL[0]))(w, images, labels))


def test_papers_network_has_19722_parameters_of_fan_in_scale():
    w = jax.jit(partial(conv.init, PAPER))(jax.random.key(0))
    assert sum(a.size for a in jax.tree.leaves(w)) == 19722
    for name, fan_in in (("conv1/kernel", 288), ("conv2/kernel", 288)):
        assert np.std(w[name]) * np.sqrt(fan_in) == pytest.approx(1, abs=0.03)
        assert np.max(np.abs(w[name])) * np.sqrt(fan_in) <= 2 / 0.879
    assert not any(np.any(w[f"conv{i}/bias"]) for i in range(3))
    assert not np.array_equal(w["conv1/kernel"], w["conv2/kernel"])


def test_float32_gradient_stays_float32_near_float64():
    w, _, images, labels = problem(SMALL[0], dtype=jnp.float32)
    losses = conv.loss, reference_loss
    got, want = (jax.jit(jax.grad(lambda w, f=f: f(SMALL[0], w, images, labels)))(w) for f in losses)
    assert all(a.dtype == jnp.float32 for a in jax.tree.leaves(got))
    assert_close(got, want, 1e-4)


def test_gradient_in_a_loop_equals_gradient_outside():
    w, _, images, labels = problem(SMALL[1], dtype=jnp.float32)

    @jax.jit
    def step(w):
        return jax.tree.map(lambda a, g: a - 0.1 * g, w, jax.grad(conv.loss, 1)(SMALL[1], w, images, labels))

    looped = jax.lax.fori_loop(0, 3, lambda _, w: step(w), w)
    assert_close(looped, step(step(step(w))), 1e-5)
