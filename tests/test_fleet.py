"""The fleet: laws of the plan under random histories, back-off by numbers, and the loop over a pretended machinery."""

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
from common.errors import UserError

LIMITS = Limits(grace=20, start=300, settle=30, backoff=1, backoff_most=8, attempts=5)


def member(slot: int, phase: Phase = Phase.RUNNING, node: str = "a", since: float = 0.0) -> Member:
    return Member(slot, f"w{slot}", phase, node, since)


class Machinery:
    """Pretends to run processes: they start and end when the test says so."""

    def __init__(self) -> None:
        self.alive: list[str] = []
        self.asked: list[str] = []
        self.killed: list[str] = []
        self.news: list[Started | Ended] = []

    def launch(self, uid: str) -> None:
        self.alive.append(uid)

    def ask_to_leave(self, uid: str) -> None:
        self.asked.append(uid)

    def kill(self, uid: str) -> None:
        self.killed.append(uid)

    def events(self) -> list[Started | Ended]:
        news, self.news = self.news, []
        return news

    def start_all(self, node: str = "a") -> None:
        self.news += [Started(uid, node) for uid in self.alive]

    def end(self, uid: str, reason: str | None, hopeless: bool = False) -> None:
        self.alive.remove(uid)
        self.news.append(Ended(uid, reason, hopeless))


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
        lambda m: (m.slot, m.phase is Phase.LEAVING, m.uid if m.phase is Phase.LEAVING else ""),
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
        m._replace(phase=Phase.LEAVING, since=now) if m.uid in todo.leave else m
        for m in state.members
        if m.uid not in todo.kill
    )
    return state._replace(
        members=kept + tuple(Member(slot, f"new-{slot}-{now}", Phase.STARTING, "", now) for slot in todo.launch)
    )


@given(states, st.floats(0, 500))
def test_plan_keeps_its_laws(state: State, now: float) -> None:
    todo = plan(state, now, LIMITS)
    active = {m.uid: m for m in state.members if m.phase is not Phase.LEAVING}
    slots = {m.slot for m in active.values()}
    # never both up and down, never beyond the target, never two processes in one slot
    assert not (todo.launch and todo.leave)
    assert len(todo.leave) == max(len(active) - state.target, 0)
    assert len(active) + len(todo.launch) <= max(state.target, len(active))
    assert not slots & set(todo.launch) and len(set(todo.launch)) == len(todo.launch)
    assert set(todo.leave) <= set(active)
    # a slot that waits or is given up is not launched
    for slot in todo.launch:
        failure = state.failures.get(slot)
        assert failure is None or (failure.attempts < LIMITS.attempts and now >= failure.retry_at)
    # only those whose time is over are killed
    late = {Phase.LEAVING: LIMITS.grace, Phase.STARTING: LIMITS.start}
    assert set(todo.kill) == {m.uid for m in state.members if m.phase in late and now - m.since >= late[m.phase]}


@given(states, st.floats(0, 500))
def test_plan_reaches_its_end_in_one_step(state: State, now: float) -> None:
    state = state._replace(failures={})
    after = apply(state, plan(state, now, LIMITS), now)
    todo = plan(after, now, LIMITS)
    killed_starters = len([m for m in state.members if m.phase is Phase.STARTING and now - m.since >= LIMITS.start])
    assert not todo.leave
    assert len(todo.launch) <= killed_starters  # their places are filled once they are gone
    assert plan(apply(after, todo, now), now, LIMITS) == Plan()


def test_scaling_down_empties_the_emptiest_node_first() -> None:
    crowd = (member(0, node="a"), member(1, node="b"), member(2, node="b"), member(3, node="c"), member(4, node="c"))
    assert plan(State(2, crowd), 0, LIMITS).leave == ("w0", "w2", "w1")


def test_a_failing_slot_waits_twice_as_long_each_time_and_is_given_up() -> None:
    state, now, pauses = State(1), 0.0, []
    for _ in range(LIMITS.attempts):
        assert plan(state, now, LIMITS).launch == (0,)
        state = started(apply(state, plan(state, now, LIMITS), now), f"new-0-{now}", "a", now)
        state = ended(state, Ended(f"new-0-{now}", "boom"), now, LIMITS)
        pauses.append(state.failures[0].retry_at - now)
        assert plan(state, state.failures[0].retry_at - 0.01, LIMITS) == Plan()
        now = state.failures[0].retry_at
    assert pauses == [1, 2, 4, 8, 8]
    assert plan(state, now + 1e9, LIMITS) == Plan()


def test_a_worker_without_a_place_is_asked_for_again_and_again() -> None:
    """A full cluster is no failure of its workers: however long it lasts, none is given up."""
    machinery = Machinery()
    fleet = Fleet(1, machinery, lambda target: None, LIMITS)
    for k in range(3 * LIMITS.attempts):
        fleet.tick(k * (LIMITS.start + 1))
        assert len(machinery.killed) == k
        for uid in machinery.killed[k - 1 : k]:
            machinery.end(uid, "killed while it waited")
        fleet.tick(k * (LIMITS.start + 1) + 1)
        assert len(machinery.alive) == 1
    assert fleet.status()["restarts"] == fleet.status()["given_up"] == 0
    machinery.end(machinery.alive[0], "boom")
    fleet.tick(k * (LIMITS.start + 1) + 2)
    assert fleet.status()["restarts"] == 1 and fleet.state.failures[0].attempts == 1


def test_a_worker_that_ran_long_enough_starts_its_count_again() -> None:
    state = State(1, (member(0, since=0.0),), {0: ended_failure(4, 0.0)})
    assert ended(state, Ended("w0", "boom"), LIMITS.settle - 1, LIMITS).failures[0].attempts == 5
    assert ended(state, Ended("w0", "boom"), LIMITS.settle, LIMITS).failures[0].attempts == 1


def test_leaving_is_no_failure() -> None:
    state = State(0, (member(0, Phase.LEAVING),), {0: ended_failure(2, 0.0)})
    assert ended(state, Ended("w0", "killed"), 1.0, LIMITS).failures == {}


def make(target: int) -> tuple[Fleet, Machinery, list[int]]:
    machinery, saved = Machinery(), []
    return Fleet(target, machinery, saved.append, LIMITS), machinery, saved


def test_dead_workers_are_replaced_counted_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    fleet, machinery, _ = make(3)
    fleet.tick(0)
    machinery.start_all("n1")
    fleet.tick(1)
    lost = machinery.alive[1]
    machinery.end(lost, "killed")
    fleet.tick(2)
    assert lost not in machinery.alive and len(machinery.alive) == 2  # back-off
    fleet.tick(3)
    assert len(machinery.alive) == 3
    assert fleet.status() == {
        "target": 3,
        "grace": 20.0,
        "starting": 1,
        "running": 2,
        "leaving": 0,
        "given_up": 0,
        "restarts": 1,
        "nodes": {"n1": 2},
        "last_failure": "killed",
    }
    assert [record.getMessage() for record in caplog.records] == [f"worker {lost} ended: killed"]


def test_scale_persists_first_then_asks_and_kills_after_the_grace_period() -> None:
    fleet, machinery, saved = make(4)
    fleet.tick(0)
    machinery.start_all()
    fleet.tick(1)
    fleet.scale(1)
    assert saved == [1]
    fleet.tick(2)
    assert len(machinery.asked) == 3 and machinery.killed == []
    machinery.end(machinery.asked[0], None)
    fleet.tick(2 + LIMITS.grace)
    assert sorted(machinery.killed) == sorted(machinery.asked[1:])
    assert fleet.replaced == 0 and fleet.running() == [u for u in machinery.alive if u not in machinery.asked]


def test_scaling_up_again_does_not_wait_for_those_who_leave() -> None:
    fleet, machinery, _ = make(2)
    fleet.tick(0)
    machinery.start_all()
    fleet.scale(0)
    fleet.tick(1)
    fleet.scale(2)
    fleet.tick(2)
    assert len(machinery.alive) == 4


def test_a_hopeless_worker_is_given_up_at_once_and_scaling_gives_it_a_new_chance() -> None:
    fleet, machinery, _ = make(1)
    fleet.tick(0)
    machinery.end(machinery.alive[0], "UserError: no such dataset", hopeless=True)
    fleet.tick(1)
    fleet.tick(1000)
    assert machinery.alive == [] and fleet.status()["given_up"] == 1
    assert "no such dataset" in fleet.status()["last_failure"]
    fleet.scale(1)
    fleet.tick(1001)
    assert len(machinery.alive) == 1


def test_a_negative_target_is_refused() -> None:
    fleet, _, saved = make(1)
    with pytest.raises(UserError, match="cannot scale to -1"):
        fleet.scale(-1)
    assert saved == []


def test_a_worker_that_leaves_of_its_own_accord_is_not_replaced() -> None:
    fleet, machinery, saved = make(2)
    fleet.tick(0)
    machinery.start_all()
    fleet.tick(1)
    machinery.end(machinery.alive[0], None)
    fleet.tick(2)
    assert len(machinery.alive) == 1 and fleet.status()["target"] == 1 and saved == []


def test_draining_does_not_touch_what_a_restart_finds() -> None:
    fleet, machinery, saved = make(2)
    fleet.tick(0)
    fleet.drain()
    fleet.tick(1)
    assert sorted(machinery.asked) == sorted(machinery.alive) and saved == []
