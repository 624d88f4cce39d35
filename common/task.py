"""Task families: what an inner problem trains. The families that are included, and those of users."""

import hashlib
import json
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from common.config import Config, DatasetConfig, TaskConfig
from common.data.dataset import Dataset, open_dataset, outer_classes
from common.errors import UserError
from common.networks import autoencoder, conv, dense, residual
from common.own_task.source import place, place_of_error
from common.own_task.task import Task
from common.task_family import SPLITS, counted_from
from common.task_family import TaskFamily as TaskFamily
from common.text_task import language_task
from common.user_code import load


class Images(NamedTuple):
    """The images of one inner split of one task, by class, padded to the largest class of the dataset."""

    pixels: np.ndarray  # [classes, largest count, H * W * C] uint8
    counts: np.ndarray  # [classes] float32, images of each class; the rest is padding


IMAGE_FAMILIES = ("conv", "residual", "mlp", "autoencoder")  # these need a dataset
TEXT_FAMILIES = ("transformer", "recurrent")


class OpenedTask(NamedTuple):
    """The task of a configuration, and a hash of the data that it draws from."""

    family: TaskFamily
    fingerprint: str  # "" for families without data, or whose data no hash is known of


class OpenedTasks(NamedTuple):
    """The tasks of all families of a run, and a hash of all their data."""

    members: tuple[OpenedTask, ...]  # as `Config.members`
    fingerprint: str


def open_tasks(config: Config) -> OpenedTasks:
    """`open_task` for each family of a run. Families with the same dataset share it. Raises UserError, which names the family."""
    opened, datasets = [], dict[DatasetConfig, Dataset]()
    for member in config.members:
        try:
            opened.append(_open(member.config, datasets))
        except UserError as error:
            raise UserError(f"the mixture's family {member.name!r}: {error}" if member.name else str(error)) from error
    hashes = [one.fingerprint for one in opened]
    combined = hashlib.sha256(json.dumps(hashes).encode()).hexdigest() if config.mixture else hashes[0]
    return OpenedTasks(tuple(opened), combined)


def open_task(config: Config) -> OpenedTask:
    """Opens the data of a configuration without a mixture, and makes its task of them.

    Raises UserError where they cannot be used.
    """
    return _open(config, {})


def _open(config: Config, datasets: dict[DatasetConfig, Dataset]) -> OpenedTask:
    dataset = None
    if config.task.family in IMAGE_FAMILIES:
        if config.dataset not in datasets:
            datasets[config.dataset] = open_dataset(config.dataset)
        dataset = datasets[config.dataset]
    family = make_task(config, dataset)
    if config.task.normalizer == "classes" and family.classes < 2:
        raise UserError(
            f"task.normalizer = 'classes' is for classifiers, and task.family = {config.task.family!r} tells no classes "
            "apart: use 'initial' or a number"
        )
    return OpenedTask(family, family.fingerprint if dataset is None else dataset.fingerprint)


def make_task(config: Config, dataset: Dataset | None) -> TaskFamily:
    """Returns the family that `config.task.family` names.

    Args:
      dataset: needed by the image families only.

    Raises:
      UserError: no dataset, too few classes, too little text, or a family of the user's that cannot be loaded.
    """
    if config.task.family == "quadratic":
        return quadratic(config.task)
    if config.task.family in TEXT_FAMILIES:
        return language_task(config)
    if ":" in config.task.family:
        return user_family(config)
    if dataset is None:
        raise UserError(f"task.family = {config.task.family!r} is trained on images: it needs a dataset")
    return classifier(config, dataset)


def classifier(config: Config, dataset: Dataset) -> TaskFamily:
    """Images of `task.classes` random classes, all of each (section 4.2): classified, or reproduced by an autoencoder."""
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
    """The network of `task`, trained on the images that `sample` returns by split.

    A batch of `task.batch_size` images draws a class uniformly, then one of its images.
    """
    network, spec = make_network(task, image_shape)

    def batch(data: dict[str, Images], key: jax.Array, split: str) -> tuple[jax.Array, jax.Array]:
        images = data[split]
        which, where = jax.random.uniform(key, (2, task.batch_size), jnp.float32)
        labels = (which * task.classes).astype(jnp.int32)
        return images.pixels[labels, (where * images.counts[labels]).astype(jnp.int32)], labels

    def accuracy(w: Any, batch: tuple[jax.Array, jax.Array]) -> jax.Array:
        return jnp.mean(jnp.argmax(network.logits(spec, w, batch[0]), axis=-1) == batch[1])

    return TaskFamily(
        sample=sample,
        init=lambda key: network.init(spec, key),
        batch=batch,
        loss=lambda w, batch: network.loss(spec, w, *batch),
        accuracy=accuracy if hasattr(network, "logits") else None,
        classes=task.classes if hasattr(network, "logits") else 0,
    )


def make_network(task: TaskConfig, image_shape: tuple[int, int, int]) -> tuple[Any, Any]:
    """The module of the network, which has `init`, `loss` and, of a classifier, `logits`, and the network's shape."""
    pixels = int(np.prod(image_shape))
    if task.family == "mlp":
        return dense, dense.DenseSpec(pixels, task.units, task.classes)
    if task.family == "autoencoder":
        return autoencoder, autoencoder.AutoencoderSpec(pixels, task.units)
    if task.family == "residual":
        return residual, residual.ResidualSpec(image_shape, task.units, task.strides, task.classes)
    return conv, conv.ConvSpec(image_shape, task.units, task.strides, task.classes)


def gather(dataset: Dataset, chosen: np.ndarray, split: str) -> Images:
    """The images of the chosen classes ([classes] int), padded to the largest class of the dataset."""
    parts = [dataset.images(int(c), split) for c in chosen]
    pixels = np.zeros((len(parts), dataset.max_count(split), int(np.prod(dataset.image_shape))), np.uint8)
    for row, part in zip(pixels, parts):
        row[: len(part)] = part.reshape(len(part), -1)
    return Images(pixels, np.array([len(part) for part in parts], np.float32))


def quadratic(config: TaskConfig) -> TaskFamily:
    """loss = 1/2 sum_i a_i (w_i - c_i)^2, without noise: after t steps of SGD, a polynomial of degree 2t in its rate.

    a is uniform in 0.5 .. 1.5, c is standard normal; `task.options.dimension` is their length (default 3).
    """
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


def user_family(config: Config) -> TaskFamily:
    """The family of what `task.family = "module:name"` names: an `outertrain.Task`, or a function of the configuration
    that returns one or a TaskFamily.

    Raises:
      UserError: it cannot be loaded, fails, or is something else.
    """
    found = named = load("task.family", config.task.family)
    if not isinstance(found, Task):
        if not callable(found):
            raise UserError(
                f"task.family: {config.task.family} is not a function: name an outertrain.Task, or a function of the "
                "configuration that returns one or a TaskFamily"
            )
        found = _returned(found, config)
    if isinstance(found, Task):
        return found.family(config)
    if not isinstance(found, TaskFamily):
        raise UserError(
            f"task.family: {config.task.family} returned {type(found).__name__}, not an outertrain.Task or a "
            f"common.task.TaskFamily ({place(named)})"
        )
    return above_bound(found)


def above_bound(family: TaskFamily) -> TaskFamily:
    """The family with its losses counted from their lower bound, which is then 0."""
    bound = family.lower_bound
    if bound == 0:
        return family

    def loss(*arguments: Any) -> Any:
        found = family.loss(*arguments)
        return counted_from(bound, found) if family.state is None else (counted_from(bound, found[0]), found[1])

    return family._replace(loss=loss, lower_bound=0.0)


def _returned(function: Callable[[Config], Any], config: Config) -> Any:
    """What the user's function returns. Raises UserError where it fails."""
    try:
        return function(config)
    except UserError:
        raise
    except (Exception, SystemExit) as error:  # whatever the user's code raises
        raise UserError(
            f"task.family: {config.task.family} fails: {type(error).__name__}: {error} ({place_of_error(error)})"
        ) from error
