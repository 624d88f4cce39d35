"""Runs on a Ray cluster: a detached learner and a detached fleet, in a namespace per run.

The commands work on a node of the cluster that sees the run directory, such as its head; from a laptop they go through
`ray exec`. Learner and fleet live on the node where `launch` was given, workers wherever there is a free core.
"""

import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from cluster.actors import ray_session
from cluster.actors.ray_errors import await_ready, unwrap
from cluster.actors.worker_program import FOR_RUNS
from cluster.jobs.job import Pool
from cluster.monitoring import targets
from cluster.runs import directory
from cluster.runs.directory import RunDirectory
from common.config import Config
from common.errors import UserError

PREFIX = "outertrain/"  # of our namespaces
WORKER = {"num_cpus": 1}
ENDING_SECONDS = 40.0  # for processes that were told to end


class Handles(NamedTuple):
    """The two actors of a run; None: it is not there, because the launch was cut off, say."""

    learner: Any
    fleet: Any


@contextmanager
def connected(run: str | None = None, config: Config | None = None) -> Iterator[None]:
    """A connection to the cluster that this machine is a node of; with `config`, actors find the user's modules.

    Raises UserError when there is no cluster.
    """
    ray_session.apply_settings()
    os.environ.setdefault("RAY_AUTH_MODE", "token" if ray_session.has_token() else "disabled")
    import ray

    with tempfile.TemporaryDirectory(prefix="outertrain-") as scratch:
        travels = {"working_dir": str(ray_session.stage(config, Path(scratch)))} if config else None
        try:
            ray.init(
                address=os.environ.get("RAY_ADDRESS", "auto"),
                namespace=PREFIX + (run or ""),
                runtime_env=travels,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
        except ConnectionError as error:
            raise UserError(
                f"no Ray cluster answers on this machine ({str(error).splitlines()[0]}): start one with `ray up` or "
                "`ray start --head`, set RAY_ADDRESS, or use `outertrain train`, which needs none"
            ) from None
        try:
            yield
        finally:
            ray.shutdown()


def launch(run: RunDirectory, workers: int, spread: bool, program: str = FOR_RUNS, worker: dict | None = None) -> None:
    """Starts learner and fleet and returns when the learner is ready. Raises UserError when it cannot work."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    from cluster.actors.base import fleet_actor, learner_actor

    if running(run.name):
        raise UserError(f"the run {run.name!r} is on this cluster already: scale it, watch it, or stop it first")
    run.save_worker_target(workers)
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    # A byte: Ray puts an actor that asks for nothing on any node, whatever its soft affinity says.
    options: dict[str, Any] = {"lifetime": "detached", "scheduling_strategy": here, "memory": 1}
    each = {**(worker or WORKER), "scheduling_strategy": "SPREAD" if spread else "DEFAULT"}
    made = [learner_actor(run.path, **options)]
    try:
        await_ready(made[0].ready.remote, "learner")
        made.append(fleet_actor(run.path, program, None, each, **options))
        await_ready(made[1].status.remote, "fleet")
    except BaseException:  # Ctrl-C as well: what is detached would stay
        for actor in made:
            ray.kill(actor)
        raise


def handles(run: str) -> Handles:
    """The actors of a run that this cluster has. Raises UserError when it has none."""
    from cluster.actors.base import FLEET, LEARNER

    found = Handles(_find(run, LEARNER), _find(run, FLEET))
    if found == (None, None):
        known = ", ".join(runs()) or "none"
        raise UserError(f"the run {run!r} is not on this cluster (there are: {known}): launch it with --resume")
    return found


def fleet_of(run: str) -> Any:
    """The fleet of a run. Raises UserError when it has none."""
    fleet = handles(run).fleet
    if fleet is None:
        raise UserError(f"the run {run!r} has no fleet, its launch was cut off: stop it, and launch it with --resume")
    return fleet


def _find(run: str, actor: str) -> Any:
    import ray

    try:
        return ray.get_actor(actor, PREFIX + run)
    except ValueError:
        return None


class LaunchedFleet(NamedTuple):
    """The workers of a run on this cluster, for jobs: these come behind its training."""

    fleet: Any

    def pool(self) -> Pool:
        from cluster.actors.ray_pool import RayPool

        return RayPool(self.fleet)


@contextmanager
def launched_fleet(run: str) -> Iterator[LaunchedFleet]:
    with connected(run):
        yield LaunchedFleet(fleet_of(run))


def running(run: str) -> bool:
    return run in runs()


def runs() -> list[str]:
    """Names of the runs on this cluster."""
    import ray

    found = {actor["namespace"] for actor in ray.util.list_named_actors(all_namespaces=True)}
    return sorted(name.removeprefix(PREFIX) for name in found if name.startswith(PREFIX))


def scale(run: str, workers: int) -> None:
    unwrap(fleet_of(run).scale.remote, workers)


def stop(run: str, now: bool, tell: Callable[[str], None]) -> None:
    """Lets the workers leave, unless it is to be `now`, makes the last version durable, ends both actors."""
    import ray
    from ray.exceptions import RayActorError

    from cluster.actors.base import FLEET, LEARNER

    learner, fleet = handles(run)
    with suppress(RayActorError):
        if not now and learner and fleet:
            unwrap(learner.drain.remote)
            unwrap(fleet.drain.remote)
            _wait_until_empty(fleet, tell)
        if learner:
            unwrap(learner.close.remote)
    for actor in filter(None, (fleet, learner)):
        ray.kill(actor)
    while running(run):  # their names are free again, so that the run can be launched again
        time.sleep(0.1)
    for role in (LEARNER, FLEET):
        targets.forget_targets(directory.root() / run, run, role)


def _wait_until_empty(fleet: Any, tell: Callable[[str], None]) -> None:
    """The fleet ends those that take longer than its grace; the rest of the time is for doing so."""
    told, end = 0, time.monotonic() + unwrap(fleet.status.remote)["grace"] + ENDING_SECONDS
    while time.monotonic() < end:
        status = unwrap(fleet.status.remote)
        left = status["starting"] + status["running"] + status["leaving"]
        if left == 0:
            return
        if left != told:
            tell(f"{left} workers are leaving")
        told = left
        time.sleep(0.25)
