"""The inner problems and their images."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from common.config.key import Key, Section, require

FAMILIES = ("conv", "residual", "mlp", "autoencoder", "transformer", "recurrent", "quadratic")


@dataclass(frozen=True)
class TaskConfig(Section):
    """The inner problems (paper section 4.2)."""

    NAME: ClassVar[str] = "task"

    family: Annotated[
        str,
        Key(
            "What an inner problem trains.",
            "A step of a pair with both estimators takes about 6 ms of one core for the quickstart's conv. quadratic takes "
            "almost none, but what is learned on it does not transfer to networks.",
            form="conv, residual, mlp, autoencoder, transformer, recurrent, quadratic, or module:name of your own task",
        ),
    ] = "conv"
    units: Annotated[
        tuple[int, ...],
        Key(
            "Channels of each 3x3 convolution (conv), of the first one and of each block (residual), width of each dense layer "
            "(mlp), or of the encoder (autoencoder).",
            "Time and memory of every inner step.",
            low=1,
        ),
    ] = (16, 16, 16)
    strides: Annotated[
        tuple[int, ...],
        Key(
            "Stride of each convolution (conv), of the first one and of each block (residual).",
            "A stride of 1 instead of 2 makes all later layers cost four times.",
            low=1,
        ),
    ] = (2, 2, 1)
    classes: Annotated[int, Key("Classes of a task.", "Harder tasks, and memory for their images.", low=2)] = 10
    batch_size: Annotated[
        int, Key("Images or sequences of an inner batch (B).", "Time of an inner step, in proportion.", low=1)
    ] = 32
    inner_steps: Annotated[
        int | tuple[int, ...],
        Key(
            "Steps of an inner problem. [shortest, longest]: drawn for each inner problem, log-uniformly; evaluation takes the longest.",
            "Evaluation takes time in proportion; training, only through the windows.",
            low=1,
        ),
    ] = 500
    width: Annotated[
        int,
        Key(
            "transformer, recurrent: numbers that represent a character.",
            "Time of a step, with its square.",
            low=1,
            high=1024,
        ),
    ] = 32
    depth: Annotated[
        int, Key("transformer: blocks; recurrent: layers.", "Time of a step, in proportion.", low=1, high=64)
    ] = 2
    heads: Annotated[int, Key("transformer: heads of the attention, a divisor of task.width.", low=1, high=64)] = 2
    context: Annotated[
        int,
        Key(
            "transformer, recurrent: characters of a sequence.",
            "Time of a step, for transformer more than in proportion.",
            low=1,
            high=512,
        ),
    ] = 32
    augment: Annotated[
        tuple[Literal["global", "tensor", "coordinate"], ...],
        Key(
            "Levels of random scales that the weights of each inner problem of outer-training are divided by; empty: none.",
            "Harder tasks: scales that the optimizer cannot follow diverge. A multiplication of each weight in each step.",
        ),
    ] = ()
    augment_range: Annotated[
        float,
        Key(
            "Scales are log-uniform in 1 / augment_range .. augment_range, at each level of task.augment.",
            "Harder tasks.",
            low=1,
            high=1e6,
        ),
    ] = 10.0
    options: Annotated[
        Mapping[str, Any],
        Key("Options of a family of your own, or `dimension` of quadratic."),
    ] = field(default_factory=dict)

    normalizer: Annotated[
        float | Literal["none", "initial", "classes"],
        Key(
            "What the outer loss is divided by before it is clamped: initial: the loss at the initial weights; classes: the "
            "logarithm of task.classes, the loss of a guess; or a number.",
            "initial: one more evaluation of the loss for each inner problem.",
            above=0,
            why="losses are divided by it",
        ),
    ] = "none"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            isinstance(self.inner_steps, int) or (len(self.inner_steps) == 2 and self.shortest <= self.longest),
            f"task.inner_steps = {self.inner_steps}: give a number, or [shortest, longest]",
        )
        require(
            self.family in FAMILIES or names_function(self.family),
            f"task.family = {self.family!r} is not known: use one of {', '.join(FAMILIES)}, or 'module:name' of your own task",
        )
        require(
            not self.options
            or ":" in self.family
            or (self.family == "quadratic" and set(self.options) == {"dimension"}),
            f"task.options has {', '.join(self.options)}: only families of your own have options, and 'quadratic' has dimension",
        )
        require(
            self.family not in ("conv", "residual") or len(self.units) == len(self.strides),
            "task.units and task.strides differ in length: give one stride per convolution (conv), or one of the first "
            "convolution and of each block (residual)",
        )
        require(
            self.family != "residual" or len(self.units) >= 2,
            f"task.units = {list(self.units)}: residual needs two numbers or more, of the first convolution and of each block",
        )
        require(
            self.family != "autoencoder" or len(self.units) >= 1,
            "task.units = []: autoencoder needs a number or more, of which the last one is the length of the code",
        )
        require(
            self.family != "transformer" or self.width % self.heads == 0,
            f"task.width = {self.width} is no multiple of task.heads = {self.heads}: each head takes an equal part of it",
        )

    @property
    def shortest(self) -> int:
        """Steps of the shortest inner problem."""
        return self.inner_steps if isinstance(self.inner_steps, int) else self.inner_steps[0]

    @property
    def longest(self) -> int:
        """Steps of the longest inner problem."""
        return self.inner_steps if isinstance(self.inner_steps, int) else self.inner_steps[-1]

    @property
    def steps_text(self) -> str:
        """The steps of an inner problem in words: "500", or "100 to 500"."""
        return f"{self.longest:,}" if self.shortest == self.longest else f"{self.shortest:,} to {self.longest:,}"


def sizes(task: TaskConfig) -> str:
    """The family and the sizes that it uses, in words."""
    if task.family == "transformer":
        return f"{task.family} of width {task.width}, depth {task.depth}, {task.heads} heads, context {task.context}"
    if task.family == "recurrent":
        return f"{task.family} of width {task.width}, depth {task.depth}, context {task.context}"
    return f"{task.family} {list(task.units)}"


def names_function(text: str) -> bool:
    """Whether a text reads 'module:function'."""
    module, colon, function = text.partition(":")
    return colon == ":" and all(part.isidentifier() for part in (*module.split("."), function))


@dataclass(frozen=True)
class DatasetConfig(Section):
    """Where the classes of images, or the text, come from."""

    NAME: ClassVar[str] = "dataset"

    source: Annotated[
        Literal["procedural", "store"],
        Key(
            "procedural: generated classes; store: a folder written by `outertrain data prepare`.",
            "procedural needs no download; a store needs its folder on every node.",
        ),
    ] = "procedural"
    path: Annotated[str, Key("Folder of the class store.", form="a path, absolute or from where the command runs")] = ""
    text: Annotated[
        str,
        Key(
            "transformer, recurrent: the text that is learned; empty: the sources of Python's standard library.",
            "Needs the same text on every node; of a text, the first 64 MiB are read.",
            form="a file of text in UTF-8 or a folder of such files, absolute or from where the command runs",
        ),
    ] = ""
    seed: Annotated[
        int,
        Key(
            "Seed of the procedural classes and of the split of classes or text into outer-train and outer-test (7 : 3).",
            "Results with different seeds are results on different tasks.",
            low=0,
        ),
    ] = 0
    image_size: Annotated[
        int,
        Key(
            "procedural: side of the images, which have 3 channels.",
            "Time and memory, with its square.",
            low=8,
            high=64,
        ),
    ] = 16
    classes: Annotated[int, Key("procedural: number of classes.", low=2)] = 1000
    train_images: Annotated[
        int,
        Key(
            "procedural: inner-train images of a class. Few are memorized, which makes a generalization gap.",
            "Memory, in proportion.",
            low=1,
        ),
    ] = 150
    valid_images: Annotated[int, Key("procedural: inner-valid images of a class.", "Memory, in proportion.", low=1)] = (
        100
    )
    test_images: Annotated[int, Key("procedural: inner-test images of a class.", "Memory, in proportion.", low=1)] = 100
    valid_fraction: Annotated[
        float,
        Key(
            "store: fraction of a class's training images that becomes inner-valid.",
            "These images are lost to inner-train.",
            above=0,
            below=1,
        ),
    ] = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.source != "store" or self.path != "",
            "dataset.source = 'store' needs dataset.path: the folder that `outertrain data prepare` wrote",
        )
