"""The observer of a learner: what it publishes about itself, such as to `cluster.monitoring.metrics.LearnerMetrics`."""

from typing import Protocol

from common.messages import GradientSample
from common.update_record import UpdateRecord


class Observer(Protocol):
    """Called by the learner; must return at once, and never raise.

    `samples` of a verdict: workers' samples that the payload stands for, several in an aggregate.
    """

    def set_position(self, epoch: int, version: int) -> None: ...

    def observe_verdict(
        self, label: str, payload_bytes: int, sample: GradientSample | None, staleness: int | None, samples: int = 1
    ) -> None: ...

    def set_batch(self, samples: int, probe_rate: float) -> None: ...

    def observe_update(self, record: UpdateRecord, objective: str, seconds: float) -> None: ...

    def checkpoint_written(self, version: int, size_bytes: int, seconds: float, time: float) -> None: ...

    def checkpoint_failed(self) -> None: ...


class NullObserver:
    """An observer that ignores everything."""

    def set_position(self, epoch: int, version: int) -> None:
        pass

    def observe_verdict(
        self, label: str, payload_bytes: int, sample: GradientSample | None, staleness: int | None, samples: int = 1
    ) -> None:
        pass

    def set_batch(self, samples: int, probe_rate: float) -> None:
        pass

    def observe_update(self, record: UpdateRecord, objective: str, seconds: float) -> None:
        pass

    def checkpoint_written(self, version: int, size_bytes: int, seconds: float, time: float) -> None:
        pass

    def checkpoint_failed(self) -> None:
        pass
