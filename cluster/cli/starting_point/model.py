"""Your model: an optimizer is learned for training it. Replace the three functions by your own.

    outertrain train config.toml                          # a first optimizer, compared with tuned Adam
    outertrain export config -o my_optimizer.py           # one file; needs only jax and optax

`python model.py` trains the model once with the optimizer of the run `config`.
"""

import jax
import jax.numpy as jnp
import numpy as np
import outertrain

INPUTS, HIDDEN, CLASSES = 20, 32, 4


def data(random: np.random.Generator) -> dict[str, np.ndarray]:
    """The rows of one task: each task has another one, so that the optimizer does not learn a single data set by heart.

    Have one data set? Return its arrays always, or give them as they are: data={"x": x, "y": y}, or data="file.npz".
    """
    centres = 1.5 * random.normal(size=(CLASSES, INPUTS))
    y = random.integers(CLASSES, size=1000)
    x = centres[y] + random.normal(size=(1000, INPUTS)) * random.uniform(1, 4, size=INPUTS)
    return {"x": x.astype(np.float32), "y": y.astype(np.int32)}


def init(key: jax.Array) -> dict[str, jax.Array]:
    """The initial parameters: any pytree, such as that of flax, haiku or equinox."""
    first, second = jax.random.split(key)
    return {
        "w1": jax.random.normal(first, (INPUTS, HIDDEN)) / INPUTS**0.5,
        "b1": jnp.zeros(HIDDEN),
        "w2": jax.random.normal(second, (HIDDEN, CLASSES)) / HIDDEN**0.5,
        "b2": jnp.zeros(CLASSES),
    }


def logits(params: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    hidden = jax.nn.relu(x @ params["w1"] + params["b1"])
    return hidden @ params["w2"] + params["b2"]


def loss(params: dict[str, jax.Array], batch: dict[str, jax.Array]) -> jax.Array:
    """The mean over the batch, at least 0. A batch looks like the data.

    Dropout: add an argument `key`, random in training and None in evaluation. Batch normalization: add an argument
    `state`, return (loss, next state), and return (params, state) from init.
    """
    chosen = jnp.take_along_axis(jax.nn.log_softmax(logits(params, batch["x"])), batch["y"][:, None], axis=1)
    return -jnp.mean(chosen)


def accuracy(params: dict[str, jax.Array], batch: dict[str, jax.Array]) -> jax.Array:
    """Optional: the fraction of correct predictions."""
    return jnp.mean(jnp.argmax(logits(params, batch["x"]), axis=1) == batch["y"])


task = outertrain.Task(init, loss, data, accuracy=accuracy)


def main() -> None:
    """Trains the model with the learned optimizer, as with any optimizer of optax."""
    import optax

    optimizer = outertrain.load("config")  # the run; or the name of an included optimizer, or a theta file
    rows, key = data(np.random.default_rng(1)), jax.random.key(0)
    params = init(key)
    state = optimizer.init(params)

    @jax.jit
    def step(params, state, key):
        chosen = jax.random.randint(key, (32,), 0, 1000)
        value, gradient = jax.value_and_grad(loss)(params, jax.tree.map(lambda x: jnp.asarray(x)[chosen], rows))
        updates, state = optimizer.update(gradient, state, params)  # params is required
        return optax.apply_updates(params, updates), state, value

    for t in range(200):
        params, state, value = step(params, state, jax.random.fold_in(key, t))
        if t % 50 == 49:
            print(f"step {t + 1}: loss {value:.4f}")


if __name__ == "__main__":
    main()
