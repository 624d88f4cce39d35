"""The state of a fleet of workers, as the fleet reports it to metrics, commands and jobs."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from common.errors import UserError, last_line


@dataclass(frozen=True)
class FleetStatus:
    """Counts of workers at one moment."""

    target: int  # workers requested
    starting: int = 0
    running: int = 0
    draining: int = 0  # asked to shut down
    abandoned: int = 0  # slots that failed too often to be retried
    restarts: int = 0  # workers that exited unexpectedly, since the fleet started
    nodes: Mapping[str, int] = field(default_factory=dict)  # running workers by node
    pinned: Mapping[str, int] = field(default_factory=dict)  # those of them that have a core of their own, by node
    last_failure: str | None = None  # the last traceback
    grace: float = 0.0  # seconds that a worker gets to shut down

    @property
    def alive(self) -> int:
        """Number of worker processes."""
        return self.starting + self.running + self.draining

    def raise_if_all_abandoned(self) -> None:
        """Raises UserError when no worker is left that would be retried."""
        if self.target and self.abandoned >= self.target:
            raise UserError(f"All workers failed repeatedly. Last error: {last_line(self.last_failure or '')}")
