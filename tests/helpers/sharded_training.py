"""A program on eight devices that trains with the exported optimizer in its argument's folder, on sharded parameters."""

import os
import sys
from typing import Any

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

sys.path.append(sys.argv[1])

from exported_mlp import optimizer

SHAPE = (4, 8, 16)
SPECS = (P("x"), P(None, "y"), P("x", None, "y"))


def train(tx: Any, w: Any) -> tuple[Any, Any]:
    """Three steps, the first from a state of an eager `init`."""

    @jax.jit
    def step(w: Any, state: Any) -> tuple[Any, Any]:
        updates, state = tx.update(jax.tree.map(lambda x: x - 0.5, w), state, w)
        return jax.tree.map(jnp.add, w, updates), state

    state = tx.init(w)
    for _ in range(3):
        w, state = step(w, state)
    return w, state


def automatic(tx: Any, w: jax.Array) -> None:
    """With jit's automatic partitioning every leaf keeps the parameter's sharding, and the numbers are the same."""
    mesh = Mesh(np.array(jax.devices()).reshape(2, 4), ("x", "y"))
    expected, expected_state = train(tx, w)
    for spec in SPECS:
        at, of_state = NamedSharding(mesh, spec), NamedSharding(mesh, P(None, *spec))
        sharded = jax.device_put(w, at)
        after, state = train(tx, sharded)
        for leaf in jax.tree.leaves(tx.init(sharded)[1:] + state[1:]):
            assert leaf.sharding.is_equivalent_to(of_state, leaf.ndim), (spec, leaf.sharding)
        assert after.sharding.is_equivalent_to(at, after.ndim), (spec, after.sharding)
        np.testing.assert_allclose(after, expected, rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(state.rms, expected_state.rms, rtol=1e-5, atol=1e-9)


def explicit(tx: Any) -> None:
    """With sharding in types, init and update agree on the types, jitted or not."""
    mesh = jax.make_mesh((8,), ("x",), axis_types=(AxisType.Explicit,))
    with jax.set_mesh(mesh):
        w = jnp.zeros((2, 8, 4), jnp.float16, out_sharding=NamedSharding(mesh, P(None, "x")))
        state = tx.init(w)
        assert jax.typeof(state.momentum).sharding.spec == P(None, None, "x", None)
        types = jax.tree.map(jax.typeof, state)
        for new in (jax.jit(tx.init)(w), tx.update(w, state, w)[1], jax.jit(tx.update)(w, state, w)[1]):
            assert jax.tree.map(jax.typeof, new) == types
        assert jax.typeof(tx.update(w, state, w)[0]) == jax.typeof(w)


def by_device(tx: Any, w: jax.Array) -> None:
    """Data parallel training by pmap and shard_map: every device has its copy, and all agree with one device."""
    expected = tx.update(w, tx.init(w), w)[0]
    copies = jnp.broadcast_to(w, (8, *w.shape))
    updates = jax.pmap(tx.update)(copies, jax.pmap(tx.init)(copies), copies)[0]
    mesh = Mesh(np.array(jax.devices()), ("x",))
    mapped = jax.shard_map(lambda w: tx.update(w, tx.init(w), w)[0], mesh=mesh, in_specs=P(), out_specs=P())(w)
    for k in range(8):
        np.testing.assert_allclose(updates[k], expected, rtol=1e-5, atol=1e-9)
    np.testing.assert_allclose(mapped, expected, rtol=1e-5, atol=1e-9)


if __name__ == "__main__":
    assert len(jax.devices()) == 8
    weights = jax.random.normal(jax.random.key(0), SHAPE)
    automatic(optimizer(), weights)
    explicit(optimizer())
    by_device(optimizer(), weights)
