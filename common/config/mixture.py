"""One family of inner problems of a mixture."""

import re
from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from common.config.inner import DatasetConfig, TaskConfig
from common.config.key import Key, Section, require

# It is a label of metrics, a part of a message, and the name of a folder, so it may be neither "." nor "..".
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True)
class MixtureConfig(Section):
    """A family of inner problems of a mixture: one table of [[mixture]], with sections `task` and `dataset` of its own.

    What these leave out is taken from [task] and [dataset], which have no other use in a run with a mixture.
    """

    NAME: ClassVar[str] = "mixture"

    name: Annotated[
        str,
        Key("What messages, metrics and reports call the family; empty: task.family.", form="letters, digits, . _ -"),
    ] = ""
    weight: Annotated[
        float,
        Key(
            "Fraction of the samples that are of this family, relative to the weights of the others.",
            "Time, where its samples take longer than those of the others.",
            above=0,
            why="leave out a family that is not to be trained on",
        ),
    ] = 1.0
    task: TaskConfig = field(default_factory=TaskConfig)
    dataset: DatasetConfig = field(default_factory=DatasetConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            _NAME.fullmatch(self.label) is not None,
            f"mixture.name = {self.label!r}: up to 64 letters, digits, dots, underscores and dashes are expected, "
            "of which the first is no dot or dash",
        )

    @property
    def label(self) -> str:
        """The family's name."""
        return self.name or self.task.family.replace(":", ".")
