"""The autoencoder against plain NumPy in float64."""

from functools import partial
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from common.networks import autoencoder
from common.networks.autoencoder import AutoencoderSpec

SPEC = AutoencoderSpec(12, (7, 5, 2))


def test_loss_equals_plain_numpy():
    random = np.random.default_rng(0)
    with jax.enable_x64(True):
        shapes = jax.eval_shape(partial(autoencoder.init, SPEC), jax.random.key(0))
        w = {name: jnp.asarray(random.normal(size=one.shape)) for name, one in shapes.items()}
        images = random.integers(0, 256, (6, 12), np.uint8)
        pixels = x = images / 127.5 - 1
        for i in range(6):
            x = x @ np.asarray(w[f"dense{i}/kernel"]) + np.asarray(w[f"dense{i}/bias"])
            x = x if i in (2, 5) else np.maximum(x, 0)  # the code and the image have no ReLU
        got = jax.jit(partial(autoencoder.loss, SPEC))(w, jnp.asarray(images), jnp.zeros(6, jnp.int32))
        assert got.dtype == jnp.float64 and got.shape == ()
        np.testing.assert_allclose(got, np.mean((x - pixels) ** 2), rtol=1e-12)


@pytest.mark.parametrize("units, widths", [((3,), (12, 3, 12)), ((7, 5, 2), (12, 7, 5, 2, 5, 7, 12))])
def test_decoder_mirrors_the_encoder(units, widths):
    spec = AutoencoderSpec(12, units)
    w = jax.jit(partial(autoencoder.init, spec))(jax.random.key(0))
    assert spec.widths() == widths
    assert [w[f"dense{i}/kernel"].shape for i in range(len(widths) - 1)] == list(pairwise(widths))
    assert not any(np.any(w[f"dense{i}/bias"]) for i in range(len(widths) - 1))
