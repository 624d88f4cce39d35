"""The fleet: how many workers there should be, which ones exist, and what to do about the difference.

`plan` is pure. `Fleet` applies it to processes behind an interface of four calls, without Ray and without a clock.

A *slot* is a small number that stands for one wanted worker; each process that fills it has a uid of its own. Back-off
belongs to the slot: after repeated failures its restarts are delayed ever longer and finally abandoned, while the other
slots are unaffected.
"""

import logging
import secrets
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from typing import NamedTuple, Protocol

from cluster.monitoring.fleet_status import FleetStatus
from common.errors import UserError
from common.files import explain

log = logging.getLogger(__name__)


class Phase(Enum):
    STARTING = "starting"
    RUNNING = "running"
    DRAINING = "draining"  # asked to shut down


class Member(NamedTuple):
    """A worker process."""

    slot: int
    uid: str
    phase: Phase
    node: str  # "" until it is known
    since: float  # when this phase began, in seconds of the injected clock
    pinned: bool = False  # whether it has a core of its own


class Failure(NamedTuple):
    """The consecutive failures of a slot."""

    attempts: int
    retry_at: float
    reason: str  # the last traceback


class State(NamedTuple):
    target: int
    members: tuple[Member, ...] = ()
    failures: Mapping[int, Failure] = {}  # by slot


class Limits(NamedTuple):
    """Seconds, and a number of attempts."""

    grace: float = 20.0  # for a worker that was asked to shut down: time to finish the sample in flight
    start: float = 300.0  # for a process to report that it runs
    settle: float = 30.0  # a worker that has run this long has succeeded: the failures of its slot are forgotten
    backoff: float = 1.0  # before the first retry, doubled by each consecutive failure
    max_backoff: float = 60.0
    attempts: int = 8  # consecutive failures after which a slot is abandoned


class Started(NamedTuple):
    """A process has reported that it runs."""

    uid: str
    node: str
    pinned: bool = False  # to a core of its own


class Ended(NamedTuple):
    """A process has exited."""

    uid: str
    reason: str | None  # a traceback, or None: it ended by itself, with nothing left to do
    fatal: bool = False  # non-retryable: the error was a UserError, another attempt would end alike


class Plan(NamedTuple):
    """Actions to take now, in any order."""

    launch: tuple[int, ...] = ()  # slots
    shut_down: tuple[str, ...] = ()  # uids of workers to ask
    kill: tuple[str, ...] = ()  # uids whose time limit has passed


def plan(state: State, now: float, limits: Limits) -> Plan:
    """Returns the actions that lead from the present fleet to the target."""
    active = [m for m in state.members if m.phase is not Phase.DRAINING]
    surplus = len(active) - state.target
    shut_down = choose_surplus(active, surplus) if surplus > 0 else ()
    kill = tuple(
        m.uid
        for m in state.members
        if (m.phase is Phase.DRAINING and now - m.since >= limits.grace) or overdue(m, now, limits)
    )
    launch = tuple(slot for slot in vacant(state, active) if _may_start(state.failures.get(slot), now, limits))
    return Plan(launch, shut_down, kill)


def overdue(member: Member, now: float, limits: Limits) -> bool:
    """Whether a process has not reported itself in time. Not a failure: the cluster may have had no resources for it."""
    return member.phase is Phase.STARTING and now - member.since >= limits.start


def vacant(state: State, active: Iterable[Member]) -> list[int]:
    """The lowest free slots, as many as are missing. A slot that is abandoned or waits for a retry still counts."""
    taken = {m.slot for m in active}
    missing = state.target - len(taken)
    free = (slot for slot in range(len(taken) + max(missing, 0)) if slot not in taken)
    return [slot for slot, _ in zip(free, range(missing))]


def choose_surplus(active: list[Member], surplus: int) -> tuple[str, ...]:
    """Uids to shut down: the emptiest node first, so that an autoscaler can remove it; then the highest slots."""
    population = Counter(m.node for m in active)
    order = sorted(active, key=lambda m: (population[m.node], m.node, -m.slot))
    return tuple(m.uid for m in order[:surplus])


def _may_start(failure: Failure | None, now: float, limits: Limits) -> bool:
    return failure is None or (failure.attempts < limits.attempts and now >= failure.retry_at)


def started(state: State, event: Started, now: float) -> State:
    """The state after a process has reported itself. One that is draining stays so."""
    phase = {Phase.STARTING: Phase.RUNNING}
    members = tuple(
        m._replace(
            phase=phase.get(m.phase, m.phase),
            node=event.node,
            since=now if m.phase in phase else m.since,
            pinned=event.pinned,
        )
        if m.uid == event.uid
        else m
        for m in state.members
    )
    return state._replace(members=members)


def ended(state: State, event: Ended, now: float, limits: Limits) -> State:
    """The state after a process has exited. One that ended by itself had nothing left to do and is not replaced."""
    gone = [m for m in state.members if m.uid == event.uid]
    members = tuple(m for m in state.members if m.uid != event.uid)
    failures, target = dict(state.failures), state.target
    for member in gone:
        if event.reason is None or member.phase is Phase.DRAINING:
            failures.pop(member.slot, None)
            target -= member.phase is not Phase.DRAINING
        elif not overdue(member, now, limits):
            failures[member.slot] = _failure(failures.get(member.slot), member, event, now, limits)
    return state._replace(target=max(target, 0), members=members, failures=failures)


def _failure(before: Failure | None, member: Member, event: Ended, now: float, limits: Limits) -> Failure:
    settled = member.phase is Phase.RUNNING and now - member.since >= limits.settle
    count = 1 if settled or before is None else before.attempts + 1
    pause = min(limits.backoff * 2.0 ** (count - 1), limits.max_backoff)
    return Failure(limits.attempts if event.fatal else count, now + pause, event.reason or "")


class Processes(Protocol):
    """What a fleet needs from the system that runs its workers."""

    def launch(self, uid: str) -> None: ...
    def request_shutdown(self, uid: str) -> None: ...
    def kill(self, uid: str) -> None: ...
    def events(self) -> list[Started | Ended]:
        """Everything that has happened since the last call."""
        ...


class Fleet:
    """Keeps `target` workers running. Not thread-safe: the actor serialises the calls."""

    def __init__(
        self, target: int, processes: Processes, save_target: Callable[[int], None], limits: Limits | None = None
    ):
        self.state = State(target)
        self.restarts = 0  # processes that exited unexpectedly
        self._processes = processes
        self._save_target = save_target
        self._limits = limits or Limits()

    def scale(self, target: int) -> None:
        """Saves the target, which takes effect at the next tick. Abandoned slots are retried.

        Raises UserError when it is negative or cannot be saved; the target stays as it was.
        """
        if target < 0:
            raise UserError(f"cannot scale to {target} workers: give 0 or more")
        try:
            self._save_target(target)
        except OSError as error:
            raise UserError(f"cannot save the number of workers ({error.strerror}): {explain(error)}") from None
        self.state = self.state._replace(target=target, failures={})

    def drain(self) -> None:
        """Shuts all workers down, without changing the saved target that a restarted fleet reads."""
        self.state = self.state._replace(target=0)

    def tick(self, now: float) -> Plan:
        """Applies the events since the last tick, then carries out the plan, which it returns."""
        for event in self._processes.events():
            self._apply(event, now)
        todo = plan(self.state, now, self._limits)
        for uid in todo.kill:
            self._processes.kill(uid)
        for uid in todo.shut_down:
            self._processes.request_shutdown(uid)
        marked = tuple(
            m._replace(phase=Phase.DRAINING, since=now) if m.uid in todo.shut_down else m for m in self.state.members
        )
        new = tuple(Member(slot, f"w{slot}-{secrets.token_hex(3)}", Phase.STARTING, "", now) for slot in todo.launch)
        self.state = self.state._replace(members=marked + new)
        for member in new:
            self._processes.launch(member.uid)
        return todo

    def _apply(self, event: Started | Ended, now: float) -> None:
        if isinstance(event, Started):
            self.state = started(self.state, event, now)
            return
        unexpected = event.reason is not None and any(
            m.uid == event.uid and m.phase is not Phase.DRAINING and not overdue(m, now, self._limits)
            for m in self.state.members
        )
        self.restarts += unexpected
        if unexpected:
            log.warning("worker %s exited: %s", event.uid, event.reason)
        self.state = ended(self.state, event, now, self._limits)

    def running(self) -> list[str]:
        """Uids of the running workers."""
        return [m.uid for m in self.state.members if m.phase is Phase.RUNNING]

    def status(self) -> FleetStatus:
        phases = Counter(m.phase for m in self.state.members)
        failures = self.state.failures.values()
        running = [m for m in self.state.members if m.phase is Phase.RUNNING]
        return FleetStatus(
            target=self.state.target,
            starting=phases[Phase.STARTING],
            running=phases[Phase.RUNNING],
            draining=phases[Phase.DRAINING],
            abandoned=sum(failure.attempts >= self._limits.attempts for failure in failures),
            restarts=self.restarts,
            nodes=dict(Counter(m.node for m in running)),
            pinned=dict(Counter(m.node for m in running if m.pinned)),
            last_failure=max(failures, key=lambda failure: failure.retry_at).reason if failures else None,
            grace=self._limits.grace,
        )
