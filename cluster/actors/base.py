"""The Ray actors. Each is a shell: it makes a plain object, and its methods hand calls on to it.

    learner     one per run: threaded, restarted by Ray from its newest checkpoint
    fleet       one per run: owns the workers, so that they end when it ends
    worker      many: one core each; JAX is imported when it starts to run
    aggregator  one per machine, if asked for; owned by the fleet

A run has a Ray namespace of its own, in which `learner` and `fleet` are names.
"""

import os
import secrets
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cluster.actors.exchange_client import Call, Connection, Unreachable
from cluster.actors.fleet import Fleet, Limits
from cluster.actors.ray_workers import Crew
from cluster.actors.worker_loop import Duty
from cluster.actors.worker_program import enter_user_folder, make_workplace, read_config
from cluster.monitoring import targets
from cluster.monitoring.metrics import Endpoint, FleetMetrics
from cluster.runs.directory import RunDirectory
from common import runtime
from common.errors import UserError

LEARNER, FLEET = "learner", "fleet"
REPLY_SECONDS = 60.0  # an exchange that takes longer is repeated
TICK_SECONDS = 0.25
RESTART_SECONDS = 3.0


@contextmanager
def beginning() -> Iterator[None]:
    """Ray gives up an actor whose constructor raises, even one that is to be restarted for ever, but not one whose process
    ends: a later life that cannot begin, because its storage is away, ends after a while and is started again.
    """
    try:
        yield
    except Exception:
        if not ray.get_runtime_context().was_current_actor_reconstructed:
            raise
        traceback.print_exc()
        time.sleep(RESTART_SECONDS)
        os._exit(1)


class LearnerShell:
    """`cluster.actors.learner_service.LearnerService`. While its run cannot be opened, it says why to whoever asks, and tries again."""

    def __init__(self, run: str):
        runtime.prepare(pin=False)
        enter_user_folder()
        from cluster.actors.learner_service import LearnerService
        from cluster.actors.opening import Opening

        directory = RunDirectory(Path(run))
        directory.start_log()
        with beginning():
            self._opening = Opening(lambda: LearnerService(directory))

    @ray.method(concurrency_group="control")
    def ready(self) -> None:
        """Raises UserError when this learner cannot work."""
        self._opening.get()

    @ray.method(concurrency_group="exchange")
    def exchange(self, payload: bytes | None, epoch: int, version: int) -> bytes:
        return self._opening.get().learner.exchange(payload, epoch, version)

    @ray.method(concurrency_group="control")
    def pid(self) -> int:
        return os.getpid()

    @ray.method(concurrency_group="control")
    def status(self) -> dict[str, Any]:
        return self._opening.get().status()

    @ray.method(concurrency_group="control")
    def drain(self) -> None:
        if service := self._opening.made():
            service.learner.drain()

    @ray.method(concurrency_group="control")
    def close(self) -> None:
        if service := self._opening.made():
            service.close()


class WorkerShell:
    """`cluster.actors.worker_loop.Duty`."""

    def __init__(self, program: str, config: str, uid: str):
        runtime.prepare()
        os.nice(5)  # behind the learner of the same machine
        self._program, self._config, self._uid = program, config, uid
        self._duty = Duty()

    @ray.method(concurrency_group="control")
    def node(self) -> str:
        return str(ray.util.get_node_ip_address())

    @ray.method(concurrency_group="control")
    def pid(self) -> int:
        return os.getpid()

    @ray.method(concurrency_group="run")
    def run(self) -> None:
        aggregated = read_config(self._config).workers.aggregate > 0
        find = find_aggregator if aggregated else find_learner
        exchange = Connection(road(find), self._duty.leaving, repeat=not aggregated)
        self._duty.run(make_workplace(self._program, self._config, self._uid, exchange))

    @ray.method(concurrency_group="items")
    def perform(self, item: dict[str, Any]) -> dict[str, Any]:
        return self._duty.perform(item)

    @ray.method(concurrency_group="control")
    def leave(self) -> None:
        self._duty.leave()


class AggregatorShell:
    """`learner.aggregator.Aggregator`, for the workers of one machine."""

    def __init__(self, config: str):
        from learner.aggregator import Aggregator

        parsed = read_config(config)
        uid = f"a-{secrets.token_hex(4)}"  # another one in each life
        exchange = Connection(road(find_learner), threading.Event())
        self._aggregator = Aggregator(parsed, uid, exchange, parsed.workers.aggregate)

    @ray.method(concurrency_group="exchange")
    def exchange(self, payload: bytes | None, epoch: int, version: int) -> bytes:
        return self._aggregator.exchange(payload, epoch, version)


def find_learner() -> Any:
    """Raises ValueError when there is none now."""
    return ray.get_actor(LEARNER)


def find_aggregator() -> Any:
    """That of this machine."""
    node = ray.get_runtime_context().get_node_id()
    return ray.get(ray.get_actor(FLEET).aggregator.remote(node), timeout=REPLY_SECONDS)


def road(find: Callable[[], Any]) -> Call:
    """The exchange of the actor that `find` finds, found again when it has moved."""
    handle: Any = None

    def call(payload: bytes | None, epoch: int, version: int) -> bytes:
        nonlocal handle
        try:
            handle = handle or find()
            answer: Any = ray.get(handle.exchange.remote(payload, epoch, version), timeout=REPLY_SECONDS)
            return answer
        except RayTaskError as error:
            if not isinstance(error.cause, UserError):
                raise
            raise Unreachable(str(error.cause)) from None  # a learner that cannot open its run now, but may soon
        except (RayError, ValueError) as error:
            handle = None
            raise Unreachable(str(error)) from None

    return call


class FleetShell:
    """`cluster.actors.fleet.Fleet`, ticking in a thread, with a metrics endpoint."""

    def __init__(self, run: str, program: str, workers: int | None, options: dict[str, Any], announce: bool):
        """Args:
        workers: the target; without it, the last one that was asked for.
        options: Ray's, of each worker.
        announce: whether it is the fleet of the run, which Prometheus watches; another one may work beside it.
        """
        with beginning():
            self._begin(RunDirectory(Path(run)), program, workers, options, announce)

    def _begin(
        self, directory: RunDirectory, program: str, workers: int | None, options: dict[str, Any], announce: bool
    ) -> None:
        self._directory = directory
        self._announce = announce
        self._failure = directory.last_failure() if announce else None  # of the life before
        directory.start_log()
        self._config = directory.config_file.read_text()
        self._crew = Crew(lambda uid: worker_actor(program, self._config, uid, options))
        self._aggregators: dict[str, Any] = {}
        target = (directory.worker_target() or 0) if workers is None else workers
        config = directory.config()
        limits = Limits(grace=config.workers.grace)
        self._fleet = Fleet(target, self._crew, directory.save_worker_target, limits)
        self._metrics = FleetMetrics()
        if announce:
            self._endpoint = Endpoint(self._metrics.registry, config.metrics.address, 0)
            targets.write_targets(directory.path, directory.name, "fleet", self._endpoint.address, self._endpoint.port)
        self._lock = threading.Lock()
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        try:
            while True:
                with self._lock:
                    self._fleet.tick(time.monotonic())
                    self._tell(self._fleet.status())
                    awaited = self._crew.awaited()
                self._crew.wait(awaited, TICK_SECONDS)
        finally:  # a fleet that does not tick must not look alive: Ray starts another one
            traceback.print_exc()
            os._exit(1)

    def _tell(self, status: dict[str, Any]) -> None:
        self._metrics.observe_status(status)
        if self._announce and status["last_failure"] != self._failure:
            self._failure = status["last_failure"]
            with suppress(OSError):  # a full disk is no reason to end workers
                self._directory.save_failure(self._failure)

    @ray.method(concurrency_group="control")
    def scale(self, target: int) -> None:
        with self._lock:
            self._fleet.scale(target)

    @ray.method(concurrency_group="control")
    def drain(self) -> None:
        with self._lock:
            self._fleet.drain()

    @ray.method(concurrency_group="control")
    def pid(self) -> int:
        return os.getpid()

    @ray.method(concurrency_group="control")
    def status(self) -> dict[str, Any]:
        with self._lock:
            return self._fleet.status()

    @ray.method(concurrency_group="control")
    def workers(self) -> dict[str, Any]:
        """Handles of the workers that run, by uid: for jobs."""
        with self._lock:
            return self._crew.handles(self._fleet.running())

    @ray.method(concurrency_group="control")
    def aggregator(self, node: str) -> Any:
        """The handle of a machine's aggregator, which is made when it is first asked for."""
        with self._lock:
            if node not in self._aggregators:
                self._aggregators[node] = aggregator_actor(self._config, node)
            return self._aggregators[node]


def actor(shell: type, options: dict[str, Any], **threads: int) -> Any:
    """An actor class with this many threads in each group of methods. A call is never repeated by Ray: we do that."""
    return ray.remote(num_cpus=0, max_task_retries=0, concurrency_groups=threads)(shell).options(**options)  # type: ignore[call-overload]


def learner_actor(run: Path, **options: Any) -> Any:
    """Exchanges have one thread: each needs the learner's lock, and more threads only hand it, and the GIL, to and fro."""
    return actor(LearnerShell, {"name": LEARNER, "max_restarts": -1, **options}, exchange=1, control=2).remote(str(run))


def fleet_actor(
    run: Path, program: str, workers: int | None, worker_options: dict[str, Any], announce: bool = True, **options: Any
) -> Any:
    made = actor(FleetShell, {"name": FLEET, "max_restarts": -1, **options}, control=4)
    return made.remote(str(run), program, workers, worker_options, announce)


def aggregator_actor(config: str, node: str) -> Any:
    here = NodeAffinitySchedulingStrategy(node, soft=False)
    options = {"max_restarts": -1, "scheduling_strategy": here}
    return actor(AggregatorShell, options, exchange=64).remote(config)


def worker_actor(program: str, config: str, uid: str, options: dict[str, Any]) -> Any:
    return actor(WorkerShell, {"max_restarts": 0, **options}, run=1, items=2, control=2).remote(program, config, uid)
