"""The wire protocol between worker and learner: records, and msgpack bytes with a schema number.

    exchange(payload: bytes | None, epoch: int, version: int) -> bytes

One call, worker to learner: a packed `GradientSample` or nothing, and the epoch and version of the parameters that the
worker holds. The result is a packed `Reply`. Unpacking is strict: anything that is not exactly a record of this schema
is `Malformed`, and sizes are checked before parsing. Nothing is deserialised by pickle.
"""

import hashlib
from collections.abc import Mapping
from enum import Enum
from functools import lru_cache
from typing import Any, NamedTuple

import msgpack
import numpy as np

from common import wire_checks
from common.facts import Facts
from common.moments import Moments, empty
from common.wire_checks import MAX_PAIRS, Malformed, check

SCHEMA = 1
MIXTURE_SCHEMA = 2  # of a sample that names its family; every other sample is still one of schema 1
RAMP_SCHEMA = 3  # of a reply that has ramps; every other reply is still one of schema 1
LENGTHS = {SCHEMA: 16, MIXTURE_SCHEMA: 17}  # fields of a sample
SAMPLE = "outertrain/sample"
REPLY = "outertrain/reply"


class Verdict(Enum):
    """The learner's decision on a sample. The value is the label of the metrics, the sentence is for logs."""

    accepted = "accepted"
    stale = "stale"
    duplicate = "duplicate"
    malformed = "malformed"
    wrong_epoch = "wrong_epoch"
    wrong_run = "wrong_run"
    non_finite = "non_finite"

    @property
    def sentence(self) -> str:
        return _SENTENCES[self]


_SENTENCES = {
    Verdict.accepted: "The sample is part of the batch that is being collected.",
    Verdict.stale: "The sample arrived too late: its parameters are older than outer.max_staleness allows, or training has ended.",
    Verdict.duplicate: "A sample of this name was accepted before; it counts once.",
    Verdict.malformed: f"The payload is not a valid sample of protocol {SCHEMA}: run the same version of outertrain everywhere.",
    Verdict.wrong_epoch: "The sample was computed with parameters that are not part of this run's history: the worker discards it and continues.",
    Verdict.wrong_run: "The sample comes from another task, dataset, optimizer, estimator or curriculum: restart the worker with this run's configuration.",
    Verdict.non_finite: "A loss, the es gradient, or an rp that nothing can replace is not finite: check the worker's machine.",
}


class GradientSample(NamedTuple):
    """One antithetic pair from each of a worker's trajectories; its name is (worker, sequence)."""

    worker: str  # unique over all incarnations of all workers
    sequence: int  # grows by one with each new sample
    epoch: int  # of the parameters it was computed with
    version: int
    digest: str  # common.config.digest
    objective: str  # "train" or "valid"
    windows: tuple[int, ...]  # inner steps of each pair's truncation
    starts: tuple[int, ...]  # inner step at which it starts
    loss_plus: tuple[float, ...]
    loss_minus: tuple[float, ...]
    rp: Moments  # count 0: not computed; fewer than the pairs where those that were not finite are dropped
    es: Moments
    seconds: float  # wall time of the unroll
    facts: Facts
    family: str = ""  # of all its inner problems, in a run with a mixture of families


class Parameters(NamedTuple):
    """What the learner publishes: theta as little-endian float32 bytes, shared by all replies."""

    epoch: int
    version: int
    theta: bytes


class Reply(NamedTuple):
    """What the learner replies to an exchange."""

    verdict: Verdict | None  # None: nothing was sent
    epoch: int
    version: int
    digest: str
    theta: bytes | None  # little-endian float32; None: the worker already holds this version
    stop: bool  # the worker is to shut down
    probe_rate: float  # fraction of samples that compute rp now
    ramps: tuple[int, ...] = ()  # the update that the curriculum of each family is at, where held; empty: the version


def encode_theta(theta: np.ndarray) -> bytes:
    """Theta [P] as little-endian float32 bytes."""
    return np.ascontiguousarray(theta, "<f4").tobytes()


def decode_theta(data: bytes) -> np.ndarray:
    """Theta [P] float32, a read-only view of `data`."""
    return np.frombuffer(data, "<f4")


def theta_sha256(theta: np.ndarray) -> str:
    """Hex digest of theta [P] by its bytes: what results, checkpoints' lineage and cards name it by."""
    return hashlib.sha256(encode_theta(theta)).hexdigest()


def max_bytes(parameters: int) -> int:
    """Size limit of a sample, for theta of `parameters` numbers: four float64 vectors and the numbers of each pair."""
    return max(1 << 20, 32 * parameters + 64 * MAX_PAIRS + 8192)


def pack_sample(sample: GradientSample) -> bytes:
    """The payload of a sample."""
    packed: bytes = msgpack.packb(
        [
            SAMPLE,
            MIXTURE_SCHEMA if sample.family else SCHEMA,
            *(sample.worker, int(sample.sequence), int(sample.epoch), int(sample.version), sample.digest),
            sample.objective,
            *([int(x) for x in steps] for steps in (sample.windows, sample.starts)),
            *([float(x) for x in losses] for losses in (sample.loss_plus, sample.loss_minus)),
            *(_pack_moments(sample.rp), _pack_moments(sample.es)),
            float(sample.seconds),
            {name: float(value) for name, value in sample.facts._asdict().items() if value is not None},
            *([sample.family] if sample.family else []),
        ]
    )
    return packed


def _pack_moments(moments: Moments) -> list[Any]:
    """[count, mean, M2]; one observation has no deviations, none has no mean."""
    mean = None if moments.count == 0 else np.ascontiguousarray(moments.mean, "<f8").tobytes()
    m2 = None if moments.count < 2 else np.ascontiguousarray(moments.m2, "<f8").tobytes()
    return [int(moments.count), mean, m2]


def unpack_sample(payload: bytes, limit: int = 1 << 24) -> GradientSample:
    """The sample in `payload`, whose vectors are read-only views of it.

    Without any observation its vectors have length 0. Counts and lengths agree with each other; losses and vectors may be non-finite. Whether they fit the run is checked
    by `learner.admission`.

    Raises:
      Malformed: larger than `limit` bytes, or not a sample of this schema.
    """
    fields = _parse(payload, limit, SAMPLE, LENGTHS)
    family = wire_checks.name(fields.pop(), "family") if len(fields) + 2 == LENGTHS[MIXTURE_SCHEMA] else ""
    worker, sequence, epoch, version, digest, objective, windows, starts, plus, minus, rp, es, seconds, facts = fields
    lengths = wire_checks.integers(windows, "windows", 1)
    pairs = len(lengths)
    vectors = _vectors(rp, es, pairs)
    return GradientSample(
        worker=wire_checks.name(worker, "worker"),
        sequence=wire_checks.integer(sequence, "sequence"),
        epoch=wire_checks.integer(epoch, "epoch"),
        version=wire_checks.integer(version, "version"),
        digest=wire_checks.name(digest, "digest"),
        objective=wire_checks.name(objective, "objective"),
        windows=lengths,
        starts=wire_checks.each(wire_checks.integers(starts, "starts", 0), pairs, "starts"),
        loss_plus=wire_checks.each(wire_checks.floats(plus, "loss_plus"), pairs, "loss_plus"),
        loss_minus=wire_checks.each(wire_checks.floats(minus, "loss_minus"), pairs, "loss_minus"),
        rp=vectors[0],
        es=vectors[1],
        seconds=wire_checks.duration(seconds, "seconds"),
        facts=_facts(facts),
        family=family,
    )


def pack_reply(reply: Reply) -> bytes:
    """The bytes of a reply."""
    verdict = None if reply.verdict is None else reply.verdict.value
    schema, fields = (RAMP_SCHEMA, reply[1:]) if reply.ramps else (SCHEMA, reply[1:-1])
    packed: bytes = msgpack.packb([REPLY, schema, verdict, *fields])
    return packed


def unpack_reply(payload: bytes, limit: int = 1 << 28) -> Reply:
    """The reply in `payload`. Raises Malformed."""
    fields = _parse(payload, limit, REPLY, {SCHEMA: 9, RAMP_SCHEMA: 10})
    verdict, epoch, version, digest, theta, stop, probe_rate = fields[:7]
    check(verdict is None or verdict in Verdict.__members__, "unknown verdict")
    check(theta is None or (type(theta) is bytes and len(theta) % 4 == 0), "theta is not an array of float32")
    check(type(stop) is bool, "stop is not a boolean")
    check(type(probe_rate) is float and 0 <= probe_rate <= 1, "probe_rate is not a fraction")
    return Reply(
        verdict=None if verdict is None else Verdict(verdict),
        epoch=wire_checks.integer(epoch, "epoch"),
        version=wire_checks.integer(version, "version"),
        digest=wire_checks.name(digest, "digest"),
        theta=theta,
        stop=stop,
        probe_rate=probe_rate,
        ramps=wire_checks.integers(fields[7], "ramps", 0) if len(fields) > 7 else (),
    )


def _parse(payload: bytes, limit: int, kind: str, lengths: Mapping[int, int]) -> list[Any]:
    """The fields of a record after its kind and schema. Args: lengths: fields of a record, by the schemas that are known."""
    check(type(payload) is bytes, f"{type(payload).__name__} instead of bytes")
    check(len(payload) <= limit, f"{len(payload)} bytes are more than the limit of {limit}")
    try:
        record = msgpack.unpackb(payload, max_array_len=MAX_PAIRS, max_map_len=len(Facts._fields), max_ext_len=0)
    except (ValueError, msgpack.UnpackException) as error:
        raise Malformed(f"not msgpack: {error or type(error).__name__}") from None
    check(type(record) is list and len(record) >= 2 and record[0] == kind, f"not an {kind}")
    known = " or ".join(map(str, lengths))
    check(type(record[1]) is int and record[1] in lengths, f"schema {record[1]!r:.40} instead of {known}")
    check(len(record) == lengths[record[1]], f"{len(record)} fields instead of {lengths[record[1]]}")
    fields: list[Any] = record[2:]
    return fields


def _facts(facts: Any) -> Facts:
    check(isinstance(facts, Mapping), "facts is not a map")
    check(all(name in Facts._fields for name in facts), "facts holds an unknown name")
    return Facts(**{name: wire_checks.duration(value, name) for name, value in facts.items()})


def _vectors(rp: Any, es: Any, pairs: int) -> tuple[Moments, Moments]:
    raw = {"rp": rp, "es": es}
    for name, moments in raw.items():
        check(type(moments) is list and len(moments) == 3, f"{name} is not [count, mean, M2]")
        check(wire_checks.integer(moments[0], f"{name} count") <= pairs, f"{name} counts more than the {pairs} pairs")
        _vector_fields(name, *moments)
    sizes = {len(vector) for moments in raw.values() for vector in moments[1:] if vector is not None}
    check(len(sizes) <= 1 and 0 not in sizes, "the vectors are empty or of different lengths")
    size = sizes.pop() // 8 if sizes else 0
    return _moments(rp, size), _moments(es, size)


def _vector_fields(name: str, count: int, mean: Any, m2: Any) -> None:
    for what, vector, present in (("mean", mean, count >= 1), ("M2", m2, count >= 2)):
        right = type(vector) is bytes and len(vector) % 8 == 0 if present else vector is None
        check(
            right, f"{name} {what} is not an array of float64" if present else f"{name} {what} of {count} observations"
        )


def _moments(raw: list[Any], size: int) -> Moments:
    count, mean, m2 = raw
    if count == 0:
        return empty(size)
    return Moments(count, np.frombuffer(mean, "<f8"), _zeros(size) if m2 is None else np.frombuffer(m2, "<f8"))


@lru_cache(maxsize=1)
def _zeros(size: int) -> np.ndarray:
    """Shared by all samples of one observation, hence read-only."""
    zeros = np.zeros(size)
    zeros.flags.writeable = False
    return zeros
