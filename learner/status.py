"""The learner's status, for commands and tests."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class LearnerStatus:
    """The state of a learner at one moment. The default is that of a run whose learner has not replied yet."""

    epoch: int = 0
    version: int = 0
    updates: int = 0  # outer updates of the whole run, if its inner steps do not end it before
    finished: bool = False  # all outer updates are done
    stopping: bool = False  # workers are told to stop
    superseded: bool = False  # another learner has taken over the run
    batch: int = 0  # samples of the batch in progress
    batch_samples: int = 0  # of a full batch
    verdicts: Mapping[str, int] = field(default_factory=dict)  # samples by verdict
    workers_known: int = 0
    probe_rate: float = 1.0
    seconds: float = 0.0  # since the start of this learner
    durable_version: int = 0
    durable_seconds_ago: float = 0.0
    checkpoint_failures: int = 0
    checkpoint_error: str = ""
