"""The fleet: how many workers there should be, which there are, and what to do about the difference.

`plan` is pure. `Fleet` applies it to processes behind an interface of four calls, so it knows no Ray and no clock.

A wanted worker is a *slot*, a small number; each process that fills it has a uid of its own. Back-off belongs to the
slot: a worker that fails again and again is retried ever more slowly, then given up, while its neighbours work on.
"""

import logging
import secrets
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from typing import NamedTuple, Protocol

from common.errors import UserError

log = logging.getLogger(__name__)


class Phase(Enum):
    STARTING = "starting"
    RUNNING = "running"
    LEAVING = "leaving"


class Member(NamedTuple):
    """A living process."""

    slot: int
    uid: str
    phase: Phase
    node: str  # "" until it is known
    since: float  # when this phase began, in seconds of the injected clock


class Failure(NamedTuple):
    """What became of a slot's last processes."""

    attempts: int  # that failed in a row
    retry_at: float
    reason: str  # the last traceback


class State(NamedTuple):
    target: int
    members: tuple[Member, ...] = ()
    failures: Mapping[int, Failure] = {}


class Limits(NamedTuple):
    """Seconds, and a number of attempts."""

    grace: float = 20.0  # for a worker that was told to leave: the sample at hand may end
    start: float = 300.0  # for a process to report itself
    settle: float = 30.0  # a worker that has run this long has succeeded: its slot's failures are forgotten
    backoff: float = 1.0  # before the first retry, doubled by each failure in a row
    backoff_most: float = 60.0
    attempts: int = 8  # failures in a row after which a slot is given up


class Started(NamedTuple):
    """A process has reported itself."""

    uid: str
    node: str


class Ended(NamedTuple):
    """A process is gone."""

    uid: str
    reason: str | None  # a traceback, or None: it left of its own accord
    hopeless: bool = False  # it says itself that another attempt would end alike


class Plan(NamedTuple):
    """What to do now, in any order."""

    launch: tuple[int, ...] = ()  # slots
    leave: tuple[str, ...] = ()  # uids to ask
    kill: tuple[str, ...] = ()  # uids whose time is over


def plan(state: State, now: float, limits: Limits) -> Plan:
    """The steps from the fleet that is to the fleet that is wanted."""
    active = [m for m in state.members if m.phase is not Phase.LEAVING]
    surplus = len(active) - state.target
    leave = leavers(active, surplus) if surplus > 0 else ()
    kill = tuple(
        m.uid
        for m in state.members
        if (m.phase is Phase.LEAVING and now - m.since >= limits.grace) or overdue(m, now, limits)
    )
    launch = tuple(slot for slot in vacant(state, active) if _may_start(state.failures.get(slot), now, limits))
    return Plan(launch, leave, kill)


def overdue(member: Member, now: float, limits: Limits) -> bool:
    """Whether it has not reported itself in time. That is no failure: the cluster may have had no place for it."""
    return member.phase is Phase.STARTING and now - member.since >= limits.start


def vacant(state: State, active: Iterable[Member]) -> list[int]:
    """The lowest free slots, as many as are missing. One that is given up, or waits, keeps its place among them."""
    taken = {m.slot for m in active}
    missing = state.target - len(taken)
    free = (slot for slot in range(len(taken) + max(missing, 0)) if slot not in taken)
    return [slot for slot, _ in zip(free, range(missing))]


def leavers(active: list[Member], surplus: int) -> tuple[str, ...]:
    """Uids, from the emptiest node first so that an autoscaler can give it back; the newest slots of a node first."""
    population = Counter(m.node for m in active)
    order = sorted(active, key=lambda m: (population[m.node], m.node, -m.slot))
    return tuple(m.uid for m in order[:surplus])


def _may_start(failure: Failure | None, now: float, limits: Limits) -> bool:
    return failure is None or (failure.attempts < limits.attempts and now >= failure.retry_at)


def started(state: State, uid: str, node: str, now: float) -> State:
    """The process has reported itself; one that was told to leave meanwhile stays a leaving one."""
    phase = {Phase.STARTING: Phase.RUNNING}
    members = tuple(
        m._replace(phase=phase.get(m.phase, m.phase), node=node, since=now if m.phase in phase else m.since)
        if m.uid == uid
        else m
        for m in state.members
    )
    return state._replace(members=members)


def ended(state: State, event: Ended, now: float, limits: Limits) -> State:
    """The process is gone. One that left of its own accord found nothing to do: it is not replaced."""
    gone = [m for m in state.members if m.uid == event.uid]
    members = tuple(m for m in state.members if m.uid != event.uid)
    failures, target = dict(state.failures), state.target
    for member in gone:
        if event.reason is None or member.phase is Phase.LEAVING:
            failures.pop(member.slot, None)
            target -= member.phase is not Phase.LEAVING
        elif not overdue(member, now, limits):
            failures[member.slot] = _failure(failures.get(member.slot), member, event, now, limits)
    return state._replace(target=max(target, 0), members=members, failures=failures)


def _failure(before: Failure | None, member: Member, event: Ended, now: float, limits: Limits) -> Failure:
    settled = member.phase is Phase.RUNNING and now - member.since >= limits.settle
    count = 1 if settled or before is None else before.attempts + 1
    pause = min(limits.backoff * 2.0 ** (count - 1), limits.backoff_most)
    return Failure(limits.attempts if event.hopeless else count, now + pause, event.reason or "")


class Processes(Protocol):
    """What a fleet needs of the machinery that runs its workers."""

    def launch(self, uid: str) -> None: ...
    def ask_to_leave(self, uid: str) -> None: ...
    def kill(self, uid: str) -> None: ...
    def events(self) -> list[Started | Ended]:
        """What has happened since the last call."""
        ...


class Fleet:
    """Keeps `target` workers alive. Not thread-safe: its shell serialises the calls."""

    def __init__(
        self, target: int, processes: Processes, save_target: Callable[[int], None], limits: Limits | None = None
    ):
        self.state = State(target)
        self.replaced = 0  # processes that ended without having been asked to
        self._processes = processes
        self._save_target = save_target
        self._limits = limits or Limits()

    def scale(self, target: int) -> None:
        """Takes effect at the next tick, and again after a restart. Slots that were given up get a new chance."""
        if target < 0:
            raise UserError(f"cannot scale to {target} workers: give 0 or more")
        self._save_target(target)
        self.state = self.state._replace(target=target, failures={})

    def drain(self) -> None:
        """All workers are to leave; the target that a restart finds stays."""
        self.state = self.state._replace(target=0)

    def tick(self, now: float) -> Plan:
        """Takes in what has happened, then acts on the plan, which it returns."""
        for event in self._processes.events():
            self._take_in(event, now)
        todo = plan(self.state, now, self._limits)
        for uid in todo.kill:
            self._processes.kill(uid)
        for uid in todo.leave:
            self._processes.ask_to_leave(uid)
        marked = tuple(
            m._replace(phase=Phase.LEAVING, since=now) if m.uid in todo.leave else m for m in self.state.members
        )
        new = tuple(Member(slot, f"w{slot}-{secrets.token_hex(3)}", Phase.STARTING, "", now) for slot in todo.launch)
        self.state = self.state._replace(members=marked + new)
        for member in new:
            self._processes.launch(member.uid)
        return todo

    def _take_in(self, event: Started | Ended, now: float) -> None:
        if isinstance(event, Started):
            self.state = started(self.state, event.uid, event.node, now)
            return
        unasked = event.reason is not None and any(
            m.uid == event.uid and m.phase is not Phase.LEAVING and not overdue(m, now, self._limits)
            for m in self.state.members
        )
        self.replaced += unasked
        if unasked:
            log.warning("worker %s ended: %s", event.uid, event.reason)
        self.state = ended(self.state, event, now, self._limits)

    def running(self) -> list[str]:
        return [m.uid for m in self.state.members if m.phase is Phase.RUNNING]

    def status(self) -> dict:
        """Counts and reasons for people and scripts, JSON-able."""
        phases = Counter(m.phase.value for m in self.state.members)
        given_up = [f for f in self.state.failures.values() if f.attempts >= self._limits.attempts]
        return {
            "target": self.state.target,
            "grace": self._limits.grace,
            **{phase.value: phases.get(phase.value, 0) for phase in Phase},
            "given_up": len(given_up),
            "restarts": self.replaced,
            "nodes": dict(Counter(m.node for m in self.state.members if m.phase is Phase.RUNNING)),
            "last_failure": max(self.state.failures.values(), key=lambda f: f.retry_at).reason
            if self.state.failures
            else None,
        }
