"""Inner problems: the protocol that every family of tasks fills, and the families that we ship."""

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from common.config import Config, TaskConfig
from common.data.dataset import Dataset, outer_classes
from common.errors import UserError
from common.networks import conv, dense


class TaskFamily(NamedTuple):
    """A family of inner problems. `data` is one task, of the same shapes for every task; a split is a plain string."""

    sample: Callable[
        [np.random.Generator, str], Any
    ]  # (random, "outer_train" | "outer_test") -> data; numpy, on the host
    init: Callable[[jax.Array], Any]  # key -> w, a pytree
    batch: Callable[[Any, jax.Array, str], Any]  # (data, key, "train" | "valid" | "test") -> batch
    loss: Callable[[Any, Any], jax.Array]  # (w, batch) -> loss [], 0 or more
    accuracy: Callable[[Any, Any], jax.Array] | None = None  # (w, batch) -> share of right answers []


class Images(NamedTuple):
    """The images of one inner split of one task. Classes are padded to the largest, `counts` says how far."""

    pixels: np.ndarray  # [classes, max count, H * W * C] uint8
    counts: np.ndarray  # [classes] float32


SPLITS = ("train", "valid", "test")
IMAGE_FAMILIES = ("conv", "mlp")  # these need a dataset


def make_task(config: Config, dataset: Dataset | None) -> TaskFamily:
    """The family that `config.task` names; only image families need a dataset."""
    if config.task.family == "quadratic":
        return quadratic(config.task)
    if ":" in config.task.family:
        return user_family(config)
    if dataset is None:
        raise UserError(f"task.family = {config.task.family!r} classifies images: it needs a dataset")
    return classifier(config, dataset)


def classifier(config: Config, dataset: Dataset) -> TaskFamily:
    """Ten classes at random, all their images (section 4.2), and a small network to be trained on them."""
    task = config.task
    classes = {split: outer_classes(dataset, split, config.dataset.seed) for split in ("outer_train", "outer_test")}
    for split, pool in classes.items():
        if len(pool) < task.classes:
            raise UserError(
                f"the dataset has {len(pool)} {split} classes, too few for tasks of {task.classes}: "
                "prepare more classes, or lower task.classes"
            )

    def sample(random: np.random.Generator, outer_split: str) -> dict[str, Images]:
        chosen = random.choice(classes[outer_split], task.classes, replace=False)
        return {split: gather(dataset, chosen, split) for split in SPLITS}

    return image_family(task, dataset.image_shape, sample)


def image_family(
    task: TaskConfig, image_shape: tuple[int, int, int], sample: Callable[[np.random.Generator, str], dict[str, Images]]
) -> TaskFamily:
    """The network of `task` on the images that `sample` gives; batches draw a class, then one of its images."""
    network, spec = make_network(task, image_shape)

    def batch(data: dict[str, Images], key: jax.Array, split: str) -> tuple[jax.Array, jax.Array]:
        images = data[split]
        which, where = jax.random.uniform(key, (2, task.batch_size), jnp.float32)
        labels = (which * task.classes).astype(jnp.int32)
        return images.pixels[labels, (where * images.counts[labels]).astype(jnp.int32)], labels

    return TaskFamily(
        sample=sample,
        init=lambda key: network.init(spec, key),
        batch=batch,
        loss=lambda w, batch: network.loss(spec, w, *batch),
        accuracy=lambda w, batch: jnp.mean(jnp.argmax(network.logits(spec, w, batch[0]), axis=-1) == batch[1]),
    )


def make_network(task: TaskConfig, image_shape: tuple[int, int, int]) -> tuple[Any, Any]:
    """The module of the network (`init`, `logits`, `loss`) and its shape."""
    if task.family == "mlp":
        return dense, dense.DenseSpec(int(np.prod(image_shape)), task.units, task.classes)
    return conv, conv.ConvSpec(image_shape, task.units, task.strides, task.classes)


def gather(dataset: Dataset, chosen: np.ndarray, split: str) -> Images:
    """The images of the chosen classes, padded to the dataset's largest class."""
    parts = [dataset.images(int(c), split) for c in chosen]
    pixels = np.zeros((len(parts), dataset.max_count(split), int(np.prod(dataset.image_shape))), np.uint8)
    for row, part in zip(pixels, parts):
        row[: len(part)] = part.reshape(len(part), -1)
    return Images(pixels, np.array([len(part) for part in parts], np.float32))


def quadratic(config: TaskConfig) -> TaskFamily:
    """loss = 1/2 sum_i a_i (w_i - c_i)^2, without noise: every outer loss under SGD is a polynomial in its rate."""
    dimension = config.options.get("dimension", 3)
    if type(dimension) is not int or dimension < 1:
        raise UserError(f"task.options.dimension = {dimension!r}: a whole number of at least 1 is expected")

    def sample(random: np.random.Generator, outer_split: str) -> dict[str, np.ndarray]:
        return {
            "curvature": random.uniform(0.5, 1.5, dimension).astype(np.float32),
            "centre": random.normal(size=dimension).astype(np.float32),
        }

    return TaskFamily(
        sample=sample,
        init=lambda key: {"w": jax.random.normal(key, (dimension,))},
        batch=lambda data, key, split: data,
        loss=lambda w, batch: 0.5 * jnp.sum(batch["curvature"] * (w["w"] - batch["centre"]) ** 2),
    )


ROOMS = ("common", "learner", "workers", "cluster")


def user_family(config: Config) -> TaskFamily:
    """A family of the user's own: `module:function`, called with the whole config, gives a `TaskFamily`.

    Raises UserError when the module cannot be imported or shadows one of ours, or the function is not there.
    """
    module_name, _, function_name = config.task.family.partition(":")
    if module_name.split(".")[0] in ROOMS:
        raise UserError(f"task.family: the module {module_name!r} would shadow ours: give it another name")
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)  # appended, never prepended: a user's file must not replace a library
    try:
        function = getattr(importlib.import_module(module_name), function_name)
    except (ImportError, AttributeError) as error:
        raise UserError(
            f"task.family = {config.task.family!r} cannot be loaded ({error}): run where {module_name}.py lies, or install it"
        ) from error
    if not callable(function):
        raise UserError(f"task.family: {config.task.family} is no function: name one that returns a TaskFamily")
    family = function(config)
    if not isinstance(family, TaskFamily):
        raise UserError(
            f"task.family: {config.task.family} returned {type(family).__name__}, not a common.task.TaskFamily"
        )
    return family
