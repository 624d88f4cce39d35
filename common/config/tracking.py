"""Experiment trackers: a section that does not change the meaning of a sample."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from common.config.key import Key, Section, require


@dataclass(frozen=True)
class TrackingConfig(Section):
    """Copies of what history.jsonl holds, in experiment trackers."""

    NAME: ClassVar[str] = "tracking"

    sinks: Annotated[
        tuple[Literal["tensorboard", "mlflow", "wandb"], ...],
        Key(
            "Trackers that receive the numbers of each outer update, the configuration, and at the end report and theta.",
            "None to training: a tracker that is slow or down misses updates.",
        ),
    ] = ()
    uri: Annotated[
        str,
        Key(
            "mlflow: address of its server; empty: $MLFLOW_TRACKING_URI, or a folder in the run directory.",
            form="a URI, such as http://localhost:5000",
        ),
    ] = ""
    project: Annotated[str, Key("Experiment of mlflow, project of wandb.")] = "outertrain"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            len(set(self.sinks)) == len(self.sinks),
            f"tracking.sinks = {list(self.sinks)}: name each tracker once",
        )
