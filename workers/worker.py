"""The worker: a loop over one callable, `exchange`, that sends a sample and returns the newest parameters.

reply <- exchange(nothing)                      parameters, without a sample
repeat: sample one truncation of each trajectory at theta +- sigma n; reply <- exchange(sample)
until the reply says stop
"""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from common import moments
from common.augmentation import augmented
from common.config import Config, digest
from common.errors import UserError
from common.exchange import Exchange
from common.facts import Facts
from common.messages import GradientSample, Reply, decode_theta, encode_theta, pack_reply, pack_sample, unpack_reply
from common.optimizer import make_family
from common.streams import FAMILIES, PROBES, Stream
from common.task import OpenedTasks, open_tasks
from workers import trace_cache
from workers.estimators import clipped_pairs, usable_rp
from workers.slots import Slots
from workers.trajectory import Advance, Sampler, Trajectory
from workers.unroll import Compiler, OuterLoss, Unroll, jitted


class Engine(NamedTuple):
    """What the workers of a process share: the tasks, and their unrolls, whose tapes take up to 192 MB each."""

    tasks: OpenedTasks
    unrolls: tuple[Unroll, ...]  # one for each family of tasks


def make_engine(config: Config, *, keep_traces: bool = False) -> Engine:
    """The engine of a run.

    Args:
      keep_traces: whether traced functions are kept for other processes (`workers.trace_cache`).

    Raises:
      UserError: the task or its data cannot be used.
    """
    opened, family, unrolls = open_tasks(config), make_family(config.optimizer), []
    pairs = list(zip(config.members, opened.members))
    tasks = [task._replace(family=augmented(task.family, member.config.task)) for member, task in pairs]
    loss, segment = OuterLoss.of(config.estimator), config.workers.segment
    for member, task in zip(config.members, tasks):
        compiled: Compiler | None = trace_cache.of_run(member.config, task.fingerprint) if keep_traces else None
        unrolls.append(Unroll(task.family, family, loss, segment, compiled or jitted))
    return Engine(opened._replace(members=tuple(tasks)), tuple(unrolls))


class Worker:
    """One worker: S trajectories of each family of tasks, the newest parameters it has received, and its samples so far.

    Args:
      uid: name of the worker; with `config.seed` it determines all its random numbers.
      exchange: one call to the learner or to an aggregator, which returns the packed reply.
      engine: of the process; by default one of its own.

    Raises:
      UserError: the learner's configuration or data differs, or the task family's loss is negative.
    """

    def __init__(self, config: Config, uid: str, exchange: Exchange, engine: Engine | None = None):
        tasks, unrolls = engine or make_engine(config)
        self.config, self.uid, self.exchange = config, uid, exchange
        self.digest = digest(config, tasks.fingerprint)
        size = make_family(config.optimizer).size
        self.samplers = [
            Sampler(member.config, task.family, unroll, uid, size)
            for member, task, unroll in zip(config.members, tasks.members, unrolls)
        ]
        self.trajectories = Slots(self._begin, config.estimator)
        self.sequence = 0
        self.theta: np.ndarray | None = None
        self.epoch = self.version = -1
        self.probe_rate = 1.0
        self.ramps: tuple[int, ...] = ()  # of the curriculum of each family; empty: the version
        self._exchange_seconds = 0.0

    def run(self) -> None:
        """Computes and sends samples until a reply says stop."""
        while not self.step().stop:
            pass

    def step(self) -> Reply:
        """One sample and its exchange; before the first parameters, the exchange that fetches them."""
        return self._exchange(None if self.theta is None else pack_sample(self.sample()))

    def fetch(self) -> Reply:
        """The exchange that returns the newest parameters, without a sample."""
        return self._exchange(None)

    def _exchange(self, payload: bytes | None) -> Reply:
        began = time.perf_counter()
        reply = unpack_reply(self.exchange(payload, self.epoch, self.version))
        self._exchange_seconds = time.perf_counter() - began
        self._apply(reply)
        return reply

    def _apply(self, reply: Reply) -> None:
        if reply.digest != self.digest:
            raise UserError(
                "this worker's configuration or data differs from the learner's: start it with the run's config.toml and data"
            )
        self.epoch, self.version = reply.epoch, reply.version
        self.probe_rate, self.ramps = reply.probe_rate, reply.ramps
        if reply.theta is not None:
            self.theta = decode_theta(reply.theta)

    def held(self) -> bytes:
        """The packed reply that has the parameters which the worker holds, for `hold`."""
        theta = None if self.theta is None else encode_theta(self.theta)
        return pack_reply(Reply(None, self.epoch, self.version, self.digest, theta, False, self.probe_rate, self.ramps))

    def hold(self, reply: bytes) -> None:
        """Continues with the parameters of this reply."""
        self._apply(unpack_reply(reply))

    def sample(self) -> GradientSample:
        """One truncation of every trajectory at the newest parameters."""
        assert self.theta is not None
        began, began_cpu = time.perf_counter(), time.process_time()
        family = self._family()
        trajectories = self.trajectories.of(family)
        after_tasks = time.perf_counter()
        with_rp, ramp = self._computes_rp(), self.ramps[family] if self.ramps else self.version
        advances = []
        for trajectory in trajectories:
            advance, after = self.samplers[family].advance(trajectory, self.theta, ramp, self.sequence, with_rp=with_rp)
            self.trajectories.put(after)
            advances.append(advance)
        self.sequence += 1
        if min(min(a.pair.plus.loss, a.pair.minus.loss) for a in advances) < 0:
            raise UserError(
                "the task family's loss is negative, but the bounds of the estimators assume 0 <= loss <= "
                "estimator.clamp: declare its lower_bound"
            )
        facts = facts_of(advances)._replace(
            task_seconds=after_tasks - began,
            exchange_seconds=self._exchange_seconds,
            cpu_seconds=time.process_time() - began_cpu,
        )
        made = self._pack(advances, time.perf_counter() - after_tasks, facts)
        return made._replace(family=self.config.members[family].name)

    def _family(self) -> int:
        """Which family of tasks the next sample is of; as `_computes_rp`, it depends on the sample's name only."""
        weights = [member.weight for member in self.config.members]
        if len(weights) == 1:
            return 0
        return int(self._random(FAMILIES).choice(len(weights), p=weights))

    def _begin(self, slot: int, number: int) -> Trajectory:
        return self.samplers[self.trajectories.family(slot)].begin(slot, number)

    def _random(self, stream: Stream) -> np.random.Generator:
        return self.samplers[0].random(0, self.sequence, stream)

    def _computes_rp(self) -> bool:
        """Whether the next sample computes rp; depends on (seed, uid, sequence) and the learner's past, never on its values."""
        if self.config.estimator.use == "es":
            return False
        return self._random(PROBES).uniform() < self.probe_rate

    def _pack(self, advances: list[Advance], seconds: float, facts: Facts) -> GradientSample:
        size = len(self.theta) if self.theta is not None else 0
        estimates = [a.rp for a in advances]
        rp = usable_rp(estimates, self.config.estimator)
        clipped = clipped_pairs(estimates, self.config.estimator)
        es = [a.es for a in advances if a.es is not None]
        return GradientSample(
            worker=self.uid,
            sequence=self.sequence,
            epoch=self.epoch,
            version=self.version,
            digest=self.digest,
            objective=self.config.estimator.objective,
            windows=tuple(a.steps for a in advances),
            starts=tuple(a.start for a in advances),
            loss_plus=tuple(a.pair.plus.loss for a in advances),
            loss_minus=tuple(a.pair.minus.loss for a in advances),
            rp=moments.of(np.reshape(rp, (len(rp), size))),
            es=moments.of(np.reshape(es, (len(es), size))),
            seconds=seconds,
            facts=facts._replace(rp_clipped=float(clipped)) if clipped else facts,
        )

    def snapshot(self) -> bytes:
        """The trajectories and the sequence number; with these and the parameters a worker resumes bit for bit."""
        return self.trajectories.dump(self.sequence)

    def restore(self, data: bytes) -> None:
        self.sequence = self.trajectories.load(data)

    def compilations(self) -> dict[str, Callable[[], Any]]:
        """The compiled functions of the samples of all families by name, as calls without arguments."""
        found: dict[str, Callable[[], Any]] = {}
        for family, sampler in enumerate(self.samplers):
            prefix = f"{family}-" if family else ""
            found |= {prefix + name: call for name, call in sampler.compilations().items()}
        return found


def facts_of(advances: list[Advance]) -> Facts:
    """Counts that travel with a sample for the metrics."""
    branches = 1 if advances[0].pair.es is None else 2
    return Facts(
        inner_steps=float(branches * sum(a.steps for a in advances)),
        finished=float(sum(a.finished for a in advances)),
        diverged=float(sum(a.diverged for a in advances)),
    )
