"""The transformer against plain NumPy in float64, and what makes it a model of text: it does not look ahead."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from common.networks import transformer
from common.networks.transformer import TransformerSpec

SPEC = TransformerSpec(vocabulary=7, width=4, depth=2, heads=2, context=5)
LOGITS, INIT = (jax.jit(partial(function, SPEC)) for function in (transformer.logits, transformer.init))


def problem(dtype):
    random = np.random.default_rng(0)
    shapes = jax.eval_shape(INIT, jax.random.key(0))
    w = {name: jnp.asarray(random.normal(size=one.shape), dtype) for name, one in shapes.items()}
    return w, jnp.asarray(random.integers(0, 7, (3, 5)), jnp.int32)


def reference(w, text):
    """One sequence and one position after the other."""
    w = {name: np.asarray(one) for name, one in w.items()}

    def norm(name, x):
        return (x - x.mean()) / np.sqrt(x.var() + 1e-5) * w[f"{name}/scale"] + w[f"{name}/shift"]

    def gelu(x):
        return x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))

    x = [w["characters"][code] + w["positions"][t] for t, code in enumerate(text)]
    for i in range(SPEC.depth):
        qkv = [np.split(norm(f"attention{i}", one) @ w[f"attention{i}/qkv"], 3) for one in x]
        for t in range(len(x)):
            seen = []
            for head in (slice(0, 2), slice(2, 4)):
                scores = np.exp([qkv[t][0][head] @ qkv[s][1][head] / np.sqrt(2) for s in range(t + 1)])
                seen.append(sum(a * qkv[s][2][head] for s, a in enumerate(scores / scores.sum())))
            x[t] = x[t] + np.concatenate(seen) @ w[f"attention{i}/out"]
            hidden = gelu(norm(f"dense{i}", x[t]) @ w[f"in{i}/kernel"] + w[f"in{i}/bias"])
            x[t] = x[t] + hidden @ w[f"out{i}/kernel"] + w[f"out{i}/bias"]
    return np.array([norm("final", one) @ w["output/kernel"] + w["output/bias"] for one in x])


def test_logits_equal_plain_numpy():
    with jax.enable_x64(True):
        w, text = problem(jnp.float64)
        scores = LOGITS(w, text)
        assert scores.shape == (3, 5, 7) and scores.dtype == jnp.float64
        for row, codes in zip(scores, np.asarray(text)):
            np.testing.assert_allclose(row, reference(w, codes), rtol=1e-9, atol=1e-9)


def test_logits_do_not_depend_on_what_follows():
    w, text = problem(jnp.float32)
    before, after = LOGITS(w, text), LOGITS(w, text.at[:, 3].add(1) % 7)
    np.testing.assert_array_equal(before[:, :3], after[:, :3])
    assert np.all(np.abs(before[:, 3:] - after[:, 3:]).max(axis=-1) > 0)


def test_init_has_the_counted_parameters_of_fan_in_scale():
    spec = TransformerSpec(98, 32, 2, 2, 32)
    w = jax.jit(partial(transformer.init, spec))(jax.random.key(0))
    block = 12 * 32**2 + 4 * 32 + 32 + 4 * 32  # kernels, biases of the dense layers, two normalisations
    assert sum(one.size for one in w.values()) == 2 * 98 * 32 + 98 + 32 * 32 + 2 * block + 2 * 32
    for name, std in (("attention0/qkv", 32**-0.5), ("out1/kernel", 128**-0.5 / 2), ("output/kernel", 0.1 * 32**-0.5)):
        assert np.std(w[name]) == pytest.approx(std, rel=0.05), name
    assert not np.array_equal(w["attention0/qkv"], w["attention1/qkv"])
