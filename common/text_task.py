"""Tasks on text: a network that predicts the next character of an excerpt."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from common.config import Config, TaskConfig
from common.data import text
from common.networks import recurrent, transformer
from common.networks.layers import cross_entropy
from common.task_family import TaskFamily


def language_task(config: Config) -> TaskFamily:
    """The network of `config.task` on excerpts of the text `config.dataset.text`. Raises UserError where it cannot be used.

    A batch is `task.batch_size` sequences of `task.context` characters, each drawn uniformly of a block, and the one
    character that follows: [B, context + 1] int32.
    """
    corpus = text.open_corpus(config.dataset.text, config.dataset.seed)
    network, spec = make_network(config.task)
    size, length = config.task.batch_size, config.task.context + 1

    def batch(data: dict[str, np.ndarray], key: jax.Array, split: str) -> jax.Array:
        blocks = data[split]
        which, where = jax.random.uniform(key, (2, size), jnp.float32)
        rows = (which * blocks.shape[0]).astype(jnp.int32)
        starts = (where * (text.BLOCK - length + 1)).astype(jnp.int32)
        return blocks[rows[:, None], starts[:, None] + jnp.arange(length)[None]].astype(jnp.int32)

    return TaskFamily(
        sample=lambda random, outer_split: text.excerpt(corpus, random, outer_split),
        init=lambda key: network.init(spec, key),
        batch=batch,
        loss=lambda w, batch: cross_entropy(network.logits(spec, w, batch[:, :-1]), batch[:, 1:]),
        accuracy=lambda w, batch: jnp.mean(jnp.argmax(network.logits(spec, w, batch[:, :-1]), axis=-1) == batch[:, 1:]),
        fingerprint=corpus.fingerprint,
        classes=text.VOCABULARY,
    )


def make_network(task: TaskConfig) -> tuple[Any, Any]:
    """The module of the network, which has `init` and `logits`, and the network's shape."""
    if task.family == "recurrent":
        return recurrent, recurrent.RecurrentSpec(text.VOCABULARY, task.width, task.depth)
    return transformer, transformer.TransformerSpec(text.VOCABULARY, task.width, task.depth, task.heads, task.context)
