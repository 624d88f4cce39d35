"""Runs on a Ray cluster: a detached learner and a detached fleet, in a namespace per run.

The commands must run on a node of the cluster that has access to the run directory, such as the head node; from a
laptop use `ray exec`. Learner and fleet run on the node where `launch` was called, workers wherever a core is free.
"""

import logging
import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, chdir, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, Self

from cluster.actors import ray_session
from cluster.actors.ray_address import find_head
from cluster.actors.ray_errors import await_ready, explained, summary, unwrap
from cluster.actors.user_files import stage
from cluster.actors.worker_program import TRAINING
from cluster.jobs.job import Pool
from cluster.launchers.host import raise_if_in_memory_only
from cluster.monitoring import targets
from cluster.monitoring.fleet_status import FleetStatus
from cluster.runs import directory
from cluster.runs.directory import RunDirectory
from common.config import Config
from common.errors import UserError

PREFIX = "outertrain/"  # of our namespaces
WORKER = {"num_cpus": 1}  # Ray's options of a worker
KILL_S = 10.0  # for Ray to end actors that were killed
SHUTDOWN_S = 40.0  # for the fleet to end workers that exceed their grace period


class Handles(NamedTuple):
    """The two actors of a run; None for one that is missing, after an interrupted launch for example."""

    learner: Any
    fleet: Any


@contextmanager
def connected(run: str | None = None, config: Config | None = None) -> Iterator[None]:
    """Connects to the cluster of which this machine is a node.

    Args:
      run: name of the run whose actors are started or used.
      config: of a run to launch: its actors can import the user's task family.

    Raises:
      UserError: there is no cluster.
    """
    ray_session.apply_settings()
    os.environ.setdefault("RAY_AUTH_MODE", "token" if ray_session.has_token() else "disabled")
    import ray

    with ExitStack() as stack:
        stack.enter_context(ended_by_sigterm())
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="outertrain-")))
        address, staged = find_head(), stage(config or Config(), scratch)
        _connect(ray, address, PREFIX + (run or ""), staged, own_files=config is not None)
        stack.callback(ray.shutdown)
        with explained():
            yield


def _connect(ray: Any, address: str, namespace: str, staged: Path, *, own_files: bool) -> None:
    """Raises UserError when Ray does not connect, for example because its version is not the cluster's."""
    handler = signal.getsignal(signal.SIGTERM)
    # A job brings a working directory of its own; that of the run, which its actors need, replaces it.
    os.environ["RAY_OVERRIDE_JOB_RUNTIME_ENV"] = "1"
    try:
        with chdir(staged):  # Ray puts the current folder first on the import path of tasks
            ray.init(
                address=address,
                namespace=namespace,
                runtime_env={"working_dir": str(staged)} if own_files else None,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
    except Exception as error:
        raise UserError(f"Ray does not connect to the cluster at {address}: {summary(error)}") from error
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)  # Ray has replaced it


@contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """SIGTERM raises KeyboardInterrupt in the block, so that what was begun is undone, unless it is handled already."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def check_place() -> None:
    """Raises UserError where runs would be kept in the folder of a submitted job, which Ray deletes after the job."""
    if "working_dir_files" in directory.root().parts:
        raise UserError(
            f"the runs would be kept in {directory.root()}, which Ray deletes when this job ends: set OUTERTRAIN_RUNS to a "
            "folder that stays, such as shared storage (ray job submit --runtime-env-json with env_vars)"
        )


def launch(
    run: RunDirectory,
    workers: int,
    *,
    spread: bool,
    program: str = TRAINING,
    worker_options: Mapping[str, Any] = WORKER,
) -> None:
    """Starts learner and fleet, and returns when both are ready.

    Args:
      workers: the fleet's target.
      spread: whether workers are spread over all nodes; otherwise nodes are filled one by one, so that an autoscaler
        can remove empty ones.
      program: of the workers, as `load_program` takes it.
      worker_options: Ray's options of each worker.

    Raises:
      UserError: the run is on the cluster already, or cannot start. Nothing is left running.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    from cluster.actors.fleet_actor import FleetSpec, start_fleet
    from cluster.actors.learner_actor import start_learner

    check_free(run.name)
    run.save_worker_target(workers)
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    # One byte: Ray ignores the soft affinity of an actor that requests no resource at all.
    options: dict[str, Any] = {"lifetime": "detached", "scheduling_strategy": here, "memory": 1}
    each = {**worker_options, "scheduling_strategy": "SPREAD" if spread else "DEFAULT"}
    actors = [start_learner(run.path, **options)]
    try:
        await_ready(actors[0].ready.remote, "learner")
        actors.append(start_fleet(FleetSpec(run.path, program, worker_options=each), **options))
        await_ready(actors[1].status.remote, "fleet")
    except BaseException:  # KeyboardInterrupt too: detached actors would stay
        for actor in actors:
            with suppress(Exception):  # the cluster may be lost: the first error says so
                ray.kill(actor)
        with suppress(Exception):
            _ended(run.name, KILL_S)  # what they still write would come back after the run is discarded
        for role in (targets.LEARNER, targets.FLEET):  # else Prometheus would alert about a run that does not exist
            targets.remove_targets(run, role)
        raise


def handles(run: str) -> Handles:
    """Returns the actors of a run on this cluster. Raises UserError when there is none."""
    found = find(run)
    if found == (None, None):
        known = ", ".join(runs()) or "none"
        raise UserError(f"the run {run!r} is not on this cluster (runs there: {known}): launch it with --resume")
    return found


def fleet_of(run: str) -> Any:
    """Returns the fleet of a run. Raises UserError when it has none."""
    fleet = handles(run).fleet
    if fleet is None:
        raise UserError(
            f"the run {run!r} has no fleet because its launch was interrupted: stop it, then launch it with --resume"
        )
    return fleet


def find(run: str) -> Handles:
    """Returns the actors of a run on this cluster, as far as it has them."""
    return Handles(_actor(run, targets.LEARNER), _actor(run, targets.FLEET))


def _actor(run: str, name: str) -> Any:
    import ray

    try:
        return ray.get_actor(name, PREFIX + run)
    except ValueError:
        return None


class LaunchedJobs:
    """`cluster.launchers.host.JobHost`: the workers of a launched run, whose training has priority over the jobs."""

    def __init__(self, run: str):
        self._run = run
        self._stack = ExitStack()
        self._fleet: Any = None

    def __enter__(self) -> Self:
        with self._stack:
            self._stack.enter_context(connected(self._run))
            self._fleet = fleet_of(self._run)
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def pool(self) -> Pool:
        from cluster.actors.ray_pool import RayPool

        return RayPool(self._fleet)


def running(run: str) -> bool:
    return run in runs()


def check_free(run: str) -> None:
    """Raises UserError where the run is on this cluster already."""
    if running(run):
        raise UserError(f"the run {run!r} is on this cluster already: scale it, watch it, or stop it first")


def runs() -> list[str]:
    """Names of the runs on this cluster."""
    import ray

    found = {actor["namespace"] for actor in ray.util.list_named_actors(all_namespaces=True)}
    return sorted(name.removeprefix(PREFIX) for name in found if name.startswith(PREFIX))


def scale(run: str, workers: int) -> None:
    unwrap(fleet_of(run).scale.remote, workers)


def stop(run: str, say: Callable[[str], None], *, now: bool = False) -> None:
    """Shuts the workers down, makes the newest version durable, and ends both actors.

    Args:
      say: receives messages for the user.
      now: does not wait for the samples in flight, nor for a checkpoint of the newest version.

    Raises:
      UserError: the newest version cannot be made durable; the learner keeps it in memory, and nothing is ended.
    """
    import ray
    from ray.exceptions import RayActorError

    learner, fleet = handles(run)
    with suppress(RayActorError):  # of one that restarts or has failed: the other is ended all the same
        if not now and learner and fleet:
            unwrap(learner.drain.remote)
            unwrap(fleet.drain.remote)
            _wait_until_empty(fleet, say)
    with suppress(RayActorError):
        if learner and not now:
            raise_if_in_memory_only(run, unwrap(learner.persist.remote))
        if learner:
            unwrap(learner.close.remote)
    with suppress(RayActorError):
        if close := getattr(fleet, "close", None):  # one that older code has launched has none
            unwrap(close.remote)
    for actor in filter(None, (fleet, learner)):
        ray.kill(actor)
    if not _ended(run, SHUTDOWN_S):
        raise UserError(f"the cluster does not end the actors of {run!r}: see `ray status`, then repeat the command")
    for role in (targets.LEARNER, targets.FLEET):
        targets.remove_targets(RunDirectory(directory.root() / run), role)


def _ended(run: str, seconds: float) -> bool:
    """Waits until the names of the actors are free, so that the run can be launched again; whether they are."""
    end = time.monotonic() + seconds
    while running(run):
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True


def _wait_until_empty(fleet: Any, say: Callable[[str], None]) -> None:
    """Waits for the workers to end; the fleet kills those that exceed its grace period."""
    status: FleetStatus = unwrap(fleet.status.remote)
    shown, end = 0, time.monotonic() + status.grace + SHUTDOWN_S
    while time.monotonic() < end:
        status = unwrap(fleet.status.remote)
        if status.alive == 0:
            return
        if status.alive != shown:
            say(f"waiting for {status.alive} workers to shut down")
        shown = status.alive
        time.sleep(0.25)
