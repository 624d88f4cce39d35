"""The fleet: laws of the plan for random states, back-off by numbers, and the loop over fake processes."""

import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.actors.fleet import (
    Ended,
    Failure,
    Fleet,
    Limits,
    Member,
    Phase,
    Plan,
    Started,
    State,
    ended,
    plan,
    started,
)
from cluster.monitoring.fleet_status import FleetStatus
from common.errors import UserError

LIMITS = Limits(grace=20, start=300, settle=30, backoff=1, max_backoff=8, attempts=5)


def member(slot: int, phase: Phase = Phase.RUNNING, node: str = "a", since: float = 0.0) -> Member:
    return Member(slot, f"w{slot}", phase, node, since)


class FakeProcesses:
    """Processes start and end when the test says so."""

    def __init__(self) -> None:
        self.alive: list[str] = []
        self.asked: list[str] = []
        self.killed: list[str] = []
        self.news: list[Started | Ended] = []

    def launch(self, uid: str) -> None:
        self.alive.append(uid)

    def request_shutdown(self, uid: str) -> None:
        self.asked.append(uid)

    def kill(self, uid: str) -> None:
        self.killed.append(uid)

    def events(self) -> list[Started | Ended]:
        news, self.news = self.news, []
        return news

    def start_all(self, node: str = "a") -> None:
        self.news += [Started(uid, node, pinned=k == 0) for k, uid in enumerate(self.alive)]

    def end(self, uid: str, reason: str | None, *, fatal: bool = False) -> None:
        self.alive.remove(uid)
        self.news.append(Ended(uid, reason, fatal))


phases = st.sampled_from(list(Phase))
members = st.lists(
    st.builds(
        Member,
        slot=st.integers(0, 12),
        uid=st.uuids().map(str),
        phase=phases,
        node=st.sampled_from("abc"),
        since=st.floats(0, 400),
    ),
    max_size=12,
    unique_by=(
        lambda m: m.uid,
        lambda m: (m.slot, m.phase is Phase.DRAINING, m.uid if m.phase is Phase.DRAINING else ""),
    ),
)
failures = st.dictionaries(
    st.integers(0, 12), st.builds(lambda n, t: ended_failure(n, t), st.integers(1, 5), st.floats(0, 500))
)


def ended_failure(count: int, retry_at: float):
    return Failure(count, retry_at, "reason")


states = st.builds(State, target=st.integers(0, 10), members=members.map(tuple), failures=failures)


def apply(state: State, todo: Plan, now: float) -> State:
    kept = tuple(
        m._replace(phase=Phase.DRAINING, since=now) if m.uid in todo.shut_down else m
        for m in state.members
        if m.uid not in todo.kill
    )
    return state._replace(
        members=kept + tuple(Member(slot, f"new-{slot}-{now}", Phase.STARTING, "", now) for slot in todo.launch)
    )


@given(states, st.floats(0, 500))
def test_plan_obeys_its_laws(state: State, now: float) -> None:
    todo = plan(state, now, LIMITS)
    active = {m.uid: m for m in state.members if m.phase is not Phase.DRAINING}
    slots = {m.slot for m in active.values()}
    # never launches and shuts down at once, never exceeds the target, never two processes in one slot
    assert not (todo.launch and todo.shut_down)
    assert len(todo.shut_down) == max(len(active) - state.target, 0)
    assert len(active) + len(todo.launch) <= max(state.target, len(active))
    assert not slots & set(todo.launch) and len(set(todo.launch)) == len(todo.launch)
    assert set(todo.shut_down) <= set(active)
    # an abandoned slot, or one that waits for its retry, is not launched
    for slot in todo.launch:
        failure = state.failures.get(slot)
        assert failure is None or (failure.attempts < LIMITS.attempts and now >= failure.retry_at)
    # only workers whose time limit has passed are killed
    late = {Phase.DRAINING: LIMITS.grace, Phase.STARTING: LIMITS.start}
    assert set(todo.kill) == {m.uid for m in state.members if m.phase in late and now - m.since >= late[m.phase]}


@given(states, st.floats(0, 500))
def test_plan_applied_once_leaves_nothing_to_do(state: State, now: float) -> None:
    state = state._replace(failures={})
    after = apply(state, plan(state, now, LIMITS), now)
    todo = plan(after, now, LIMITS)
    killed_starters = len([m for m in state.members if m.phase is Phase.STARTING and now - m.since >= LIMITS.start])
    assert not todo.shut_down
    assert len(todo.launch) <= killed_starters  # their slots are filled once they have exited
    assert plan(apply(after, todo, now), now, LIMITS) == Plan()


def test_plan_surplus_comes_from_the_emptiest_node_first() -> None:
    crowd = (member(0, node="a"), member(1, node="b"), member(2, node="b"), member(3, node="c"), member(4, node="c"))
    assert plan(State(2, crowd), 0, LIMITS).shut_down == ("w0", "w2", "w1")


def test_plan_failing_slot_backs_off_then_is_abandoned() -> None:
    state, now, pauses = State(1), 0.0, []
    for _ in range(LIMITS.attempts):
        assert plan(state, now, LIMITS).launch == (0,)
        state = started(apply(state, plan(state, now, LIMITS), now), Started(f"new-0-{now}", "a"), now)
        state = ended(state, Ended(f"new-0-{now}", "boom"), now, LIMITS)
        pauses.append(state.failures[0].retry_at - now)
        assert plan(state, state.failures[0].retry_at - 0.01, LIMITS) == Plan()
        now = state.failures[0].retry_at
    assert pauses == [1, 2, 4, 8, 8]
    assert plan(state, now + 1e9, LIMITS) == Plan()


def test_fleet_worker_without_resources_is_not_a_failure() -> None:
    """A full cluster is not a failure of its workers: however long it lasts, no slot is abandoned."""
    processes = FakeProcesses()
    fleet = Fleet(1, processes, lambda target: None, LIMITS)
    for k in range(3 * LIMITS.attempts):
        fleet.tick(k * (LIMITS.start + 1))
        assert len(processes.killed) == k
        for uid in processes.killed[k - 1 : k]:
            processes.end(uid, "killed while pending")
        fleet.tick(k * (LIMITS.start + 1) + 1)
        assert len(processes.alive) == 1
    assert fleet.status().restarts == fleet.status().abandoned == 0
    processes.end(processes.alive[0], "boom")
    fleet.tick(k * (LIMITS.start + 1) + 2)
    assert fleet.status().restarts == 1 and fleet.state.failures[0].attempts == 1


def test_ended_after_settling_resets_the_failure_count() -> None:
    state = State(1, (member(0, since=0.0),), {0: ended_failure(4, 0.0)})
    assert ended(state, Ended("w0", "boom"), LIMITS.settle - 1, LIMITS).failures[0].attempts == 5
    assert ended(state, Ended("w0", "boom"), LIMITS.settle, LIMITS).failures[0].attempts == 1


def test_ended_while_draining_is_not_a_failure() -> None:
    state = State(0, (member(0, Phase.DRAINING),), {0: ended_failure(2, 0.0)})
    assert ended(state, Ended("w0", "killed"), 1.0, LIMITS).failures == {}


def make(target: int) -> tuple[Fleet, FakeProcesses, list[int]]:
    processes, saved = FakeProcesses(), []
    return Fleet(target, processes, saved.append, LIMITS), processes, saved


def test_fleet_dead_worker_is_replaced_counted_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    fleet, processes, _ = make(3)
    fleet.tick(0)
    processes.start_all("n1")
    fleet.tick(1)
    lost = processes.alive[1]
    processes.end(lost, "killed")
    fleet.tick(2)
    assert lost not in processes.alive and len(processes.alive) == 2  # back-off
    fleet.tick(3)
    assert len(processes.alive) == 3
    assert fleet.status() == FleetStatus(
        target=3,
        starting=1,
        running=2,
        restarts=1,
        nodes={"n1": 2},
        pinned={"n1": 1},
        last_failure="killed",
        grace=20.0,
    )
    assert [record.getMessage() for record in caplog.records] == [f"worker {lost} exited: killed"]


def test_scale_saves_the_target_then_asks_then_kills() -> None:
    fleet, processes, saved = make(4)
    fleet.tick(0)
    processes.start_all()
    fleet.tick(1)
    fleet.scale(1)
    assert saved == [1]
    fleet.tick(2)
    assert len(processes.asked) == 3 and processes.killed == []
    processes.end(processes.asked[0], None)
    fleet.tick(2 + LIMITS.grace)
    assert sorted(processes.killed) == sorted(processes.asked[1:])
    assert fleet.restarts == 0 and fleet.running() == [u for u in processes.alive if u not in processes.asked]


def test_scale_up_does_not_wait_for_draining_workers() -> None:
    fleet, processes, _ = make(2)
    fleet.tick(0)
    processes.start_all()
    fleet.scale(0)
    fleet.tick(1)
    fleet.scale(2)
    fleet.tick(2)
    assert len(processes.alive) == 4


def test_fleet_fatal_error_abandons_until_the_next_scale() -> None:
    fleet, processes, _ = make(1)
    fleet.tick(0)
    processes.end(processes.alive[0], "UserError: no such dataset", fatal=True)
    fleet.tick(1)
    fleet.tick(1000)
    assert processes.alive == [] and fleet.status().abandoned == 1
    assert "no such dataset" in (fleet.status().last_failure or "")
    fleet.scale(1)
    fleet.tick(1001)
    assert len(processes.alive) == 1


def test_scale_negative_target_is_rejected() -> None:
    fleet, _, saved = make(1)
    with pytest.raises(UserError, match="cannot scale to -1"):
        fleet.scale(-1)
    assert saved == []


def test_fleet_worker_that_ends_by_itself_is_not_replaced() -> None:
    fleet, processes, saved = make(2)
    fleet.tick(0)
    processes.start_all()
    fleet.tick(1)
    processes.end(processes.alive[0], None)
    fleet.tick(2)
    assert len(processes.alive) == 1 and fleet.status().target == 1 and saved == []


def test_drain_does_not_change_the_saved_target() -> None:
    fleet, processes, saved = make(2)
    fleet.tick(0)
    fleet.drain()
    fleet.tick(1)
    assert sorted(processes.asked) == sorted(processes.alive) and saved == []


def test_scale_that_cannot_be_saved_keeps_the_target() -> None:
    def refuse(target: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    fleet = Fleet(1, FakeProcesses(), refuse, LIMITS)
    with pytest.raises(UserError, match=r"cannot save the number of workers .* the disk is full"):
        fleet.scale(5)
    assert fleet.status().target == 1
