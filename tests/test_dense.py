"""The dense classifier against the same network in plain NumPy, float64."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from common.networks import dense
from common.networks.dense import DenseSpec

SPEC = DenseSpec(12, (7, 5), 4)
LOGITS, LOSS = (jax.jit(partial(function, SPEC)) for function in (dense.logits, dense.loss))


def problem(dtype):
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda key: dense.init(SPEC, key), jax.random.key(0))
    w = {k: jnp.asarray(rng.normal(size=v.shape), dtype) for k, v in shapes.items()}
    return w, jnp.asarray(rng.integers(0, 256, (6, 12)), jnp.uint8), jnp.asarray(rng.integers(0, 4, 6))


def reference(w, images, labels):
    w = {k: np.asarray(v, np.float64) for k, v in w.items()}
    x = np.asarray(images, np.float64) / 127.5 - 1
    for i in range(2):
        x = np.maximum(x @ w[f"dense{i}_kernel"].T + w[f"dense{i}_bias"], 0)
    scores = x @ w["dense2_kernel"].T + w["dense2_bias"]
    return scores, np.mean([np.log(np.exp(s).sum()) - s[k] for s, k in zip(scores, labels)])


def test_logits_and_loss_equal_plain_numpy():
    with jax.enable_x64(True):
        w, images, labels = problem(jnp.float64)
        scores, loss = reference(w, images, labels)
        np.testing.assert_allclose(LOGITS(w, images), scores, rtol=1e-12)
        np.testing.assert_allclose(LOSS(w, images, labels), loss, rtol=1e-12)


def test_float32_loss_stays_float32_near_float64():
    w, images, labels = problem(jnp.float32)
    loss = LOSS(w, images, labels)
    assert loss.dtype == jnp.float32 and loss.shape == ()
    np.testing.assert_allclose(loss, reference(w, images, labels)[1], rtol=1e-5)


def test_init_has_shapes_and_scale_of_fan_in():
    init = jax.jit(partial(dense.init, DenseSpec(768, (20,), 10)))
    w = init(jax.random.key(0))
    assert {k: v.shape for k, v in w.items()} == {
        "dense0_kernel": (20, 768),
        "dense0_bias": (20,),
        "dense1_kernel": (10, 20),
        "dense1_bias": (10,),
    }
    assert not np.any(w["dense0_bias"]) and not np.any(w["dense1_bias"])
    assert np.abs(w["dense0_kernel"]).max() <= 2 / np.sqrt(768)
    assert np.std(w["dense0_kernel"]) == pytest.approx(0.8796 / np.sqrt(768), rel=0.02)
    other = init(jax.random.key(1))
    assert not np.array_equal(w["dense0_kernel"], other["dense0_kernel"])


def test_network_without_hidden_layers_is_linear():
    spec = DenseSpec(3, (), 2)
    w = {"dense0_kernel": jnp.array([[1.0, 0, 0], [0, 2, 0]]), "dense0_bias": jnp.array([0.5, 0])}
    images = jnp.array([[255, 0, 7]], jnp.uint8)
    np.testing.assert_allclose(dense.logits(spec, w, images), [[1.5, -2.0]])
