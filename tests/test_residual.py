"""The residual classifier equals one with XLA's convolution: values, gradients and Hessian-vector products, in float64."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from common.networks import residual
from common.networks.residual import ResidualSpec

SPECS = [
    ResidualSpec((8, 8, 3), (5, 4), (2, 1), 4),  # another number of channels
    ResidualSpec((9, 6, 1), (4, 4, 4), (1, 2, 1), 3),  # a stride, then an identity
]


def convolution(x, kernel, stride):
    dims = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, kernel, (stride, stride), "SAME", dimension_numbers=dims)


def reference_loss(spec, w, images, labels):
    def activated(name, x):
        x = (x - x.mean(-1, keepdims=True)) / jnp.sqrt(x.var(-1, keepdims=True) + 1e-5)
        return jnp.maximum(x * w[f"{name}/scale"][None, None, None] + w[f"{name}/shift"][None, None, None], 0)

    x = images.reshape(-1, *spec.image_shape).astype(jnp.float64) / 127.5 - 1
    x = convolution(x, w["first0/kernel"], spec.strides[0])
    for i in range(1, len(spec.units)):
        y = activated(f"first{i}", x)
        if f"shortcut{i}/kernel" in w:
            x = convolution(y, w[f"shortcut{i}/kernel"][None, None], spec.strides[i])
        y = activated(f"second{i}", convolution(y, w[f"first{i}/kernel"], spec.strides[i]))
        x = x + convolution(y, w[f"second{i}/kernel"], 1)
    scores = activated("final", x).mean((1, 2)) @ w["output/kernel"] + w["output/bias"][None]
    return -jnp.take_along_axis(jax.nn.log_softmax(scores), labels[:, None], 1).mean()


@pytest.mark.parametrize("spec", SPECS)
def test_loss_and_its_derivatives_equal_xla_convolution(spec):
    random = np.random.default_rng(0)
    with jax.enable_x64(True):
        shapes = jax.eval_shape(partial(residual.init, spec), jax.random.key(0))
        w, v = ({k: jnp.asarray(random.normal(size=s.shape)) for k, s in shapes.items()} for _ in range(2))
        images = jnp.asarray(random.integers(0, 256, (6, int(np.prod(spec.image_shape))), np.uint8))
        labels = jnp.asarray(random.integers(0, spec.classes, 6))
        outs = []
        for function in (residual.loss, reference_loss):
            value_and_grad = jax.value_and_grad(lambda w, f=function: f(spec, w, images, labels))
            outs.append(jax.jit(lambda w, v, g=value_and_grad: jax.jvp(g, (w,), (v,)))(w, v))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9), *outs)


def test_init_projects_only_where_shapes_differ():
    w = jax.jit(partial(residual.init, ResidualSpec((8, 8, 3), (4, 4, 4, 6), (2, 1, 2, 1), 3)))(jax.random.key(0))
    assert [name for name in w if name.startswith("shortcut")] == ["shortcut2/kernel", "shortcut3/kernel"]
    assert w["shortcut3/kernel"].shape == (4, 6) and w["second3/kernel"].shape == (3, 3, 6, 6)
    assert np.all(w["final/scale"] == 1) and not np.any(w["final/shift"])
