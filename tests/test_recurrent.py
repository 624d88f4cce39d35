"""The recurrent network against plain NumPy in float64, one position after the other."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from common.networks import recurrent
from common.networks.recurrent import RecurrentSpec

SPEC = RecurrentSpec(vocabulary=7, width=3, depth=2)


def reference(w, text):
    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    states, scores = [np.zeros(3), np.zeros(3)], []
    for code in text:
        x = np.eye(7)[code]
        for i in range(2):
            given = x @ w[f"input{i}/kernel"] + w[f"input{i}/bias"]
            own = states[i] @ w[f"state{i}/kernel"] + w[f"state{i}/bias"]
            reset, kept = sigmoid(given[:3] + own[:3]), sigmoid(given[3:6] + own[3:6])
            proposed = np.tanh(given[6:] + reset * own[6:])
            x = states[i] = kept * states[i] + (1 - kept) * proposed
        scores.append(x @ w["output/kernel"] + w["output/bias"])
    return np.array(scores)


def test_logits_equal_plain_numpy():
    random = np.random.default_rng(0)
    with jax.enable_x64(True):
        shapes = jax.eval_shape(partial(recurrent.init, SPEC), jax.random.key(0))
        w = {name: jnp.asarray(random.normal(size=one.shape)) for name, one in shapes.items()}
        text = random.integers(0, 7, (4, 6))
        scores = jax.jit(partial(recurrent.logits, SPEC))(w, jnp.asarray(text))
        assert scores.shape == (4, 6, 7) and scores.dtype == jnp.float64
        plain = {name: np.asarray(one) for name, one in w.items()}
        np.testing.assert_allclose(scores, [reference(plain, codes) for codes in text], rtol=1e-9, atol=1e-9)


def test_init_has_the_counted_parameters():
    w = jax.jit(partial(recurrent.init, RecurrentSpec(98, 32, 2)))(jax.random.key(0))
    layer = 32 * 96 + 2 * 96  # state, and two biases
    assert sum(one.size for one in w.values()) == 98 * 96 + layer + 32 * 96 + layer + 32 * 98 + 98
