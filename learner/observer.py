"""What the learner tells its surroundings; `cluster.monitoring.metrics.LearnerMetrics` is one such listener, `Silent` another."""

from typing import Protocol

from common.messages import GradientSample
from common.update_record import UpdateRecord


class Observer(Protocol):
    def set_position(self, epoch: int, version: int) -> None: ...

    def observe_verdict(
        self, label: str, payload_bytes: int, sample: GradientSample | None, staleness: int | None
    ) -> None: ...

    def set_batch(self, samples: int, probe_rate: float) -> None: ...

    def observe_update(self, record: UpdateRecord, objective: str, seconds: float) -> None: ...

    def checkpoint_written(self, version: int, size_bytes: int, seconds: float, time: float) -> None: ...

    def checkpoint_failed(self) -> None: ...


class Silent:
    """Nobody listens."""

    def set_position(self, epoch: int, version: int) -> None:
        pass

    def observe_verdict(
        self, label: str, payload_bytes: int, sample: GradientSample | None, staleness: int | None
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
