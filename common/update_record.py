"""The record of one outer update: what its batch looked like, and what merge and optimizer did with it.

A line of `history.jsonl` is the JSON of one; the metrics, the report and the figures are views of it. It stands in
`common` because the learner writes it and the figures of `workers` read it.
"""

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from common import jsonlines
from common.config import OuterConfig

Json = dict[str, Any]

SUMS = ("core_seconds", "inner_steps_total", "cpu_seconds")  # later fields that are written unless they are 0
CHANGED = [
    "norms",
    "clipped",
    "refused",
    "rp_dropped",
    "var_rp_nonfinite",
    "rp_clipped",
    "families",
    "allocation",
]  # in their JSON


class Quantiles(NamedTuple):
    """Quantiles over the coordinates of a vector [P], infinite where that many are not finite; None where unknown."""

    q05: float | None
    q25: float | None
    q50: float | None
    q75: float | None
    q95: float | None


LEVELS = Quantiles(0.05, 0.25, 0.5, 0.75, 0.95)
UNKNOWN = Quantiles(None, None, None, None, None)


class Weight(NamedTuple):
    """Merge weight of an estimator over the coordinates of theta."""

    mean: float
    quantiles: Quantiles


class Windows(NamedTuple):
    """Lengths of the truncations of a batch, in inner steps."""

    mean: float
    min: int
    max: int


class Staleness(NamedTuple):
    """Staleness of the samples of a batch, in versions."""

    mean: float
    max: int


class Norms(NamedTuple):
    """Euclidean norms."""

    gradient: float  # of the merged gradient, before clipping
    update: float  # of the step of theta
    theta: float  # after the step


class Allocation(NamedTuple):
    """What `estimator.allocate` has decided after an update."""

    probe_rate: float  # fraction of samples that compute rp from now on
    worth: float  # fraction of the variance of es that rp removes, mean over the last batches
    least: float  # the fraction from which on rp is worth its CPU time


class FamilyRecord(NamedTuple):
    """The samples of one family of tasks in the batch of an update, in a run with a mixture."""

    samples: int
    loss: float  # mean over its pairs
    windows: float  # mean, in inner steps
    diverged: int
    weight_rp: float | None  # mean over coordinates, of the merge that its pairs alone would give; None: no es
    var_rp: float | None  # median over coordinates, of one pair; None: unknown
    var_es: float | None

    def to_json(self) -> Json:
        return {key: jsonlines.writable(value) for key, value in self._asdict().items()}

    @classmethod
    def from_json(cls, line: Mapping[str, Any]) -> "FamilyRecord":
        return cls(
            samples=_integer(line, "samples"),
            loss=_number(line, "loss"),
            windows=_number(line, "windows"),
            diverged=_integer(line, "diverged"),
            weight_rp=_maybe(line, "weight_rp"),
            var_rp=_maybe(line, "var_rp"),
            var_es=_maybe(line, "var_es"),
        )


class UpdateRecord(NamedTuple):
    """One outer update. Losses are means over pairs, variances are of one pair."""

    epoch: int
    version: int  # after the update
    time: float  # unix seconds
    seconds: float  # since this incarnation of the learner started
    verdicts: Mapping[str, int]  # samples received since then, by verdict
    loss: float
    loss_plus: float
    loss_minus: float
    samples: int
    inner_steps: int
    windows: Windows
    staleness: Staleness
    diverged: int  # inner problems that were abandoned
    finished: int  # inner problems that reached their last step
    workers_seen: int  # senders of the batch: workers, or aggregators
    rp_nonfinite: int  # samples whose rp exploded; those of one aggregate count as one
    weight_rp: Weight
    var_rp: Quantiles
    var_es: Quantiles
    rp_fallback: int  # coordinates where rp exploded and es replaces it
    rp_pairs: int
    es_pairs: int
    norms: Norms
    clipped: float  # fraction of coordinates that clipping changed
    refused: bool  # the step left the range of float32, so that theta is unchanged
    rp_dropped: int = 0  # pairs left out of the mean under `estimator.use = "rp"`, because their rp is not finite
    var_rp_nonfinite: float = 0.0  # fraction of coordinates whose variance of rp is infinite
    rp_clipped: int = 0  # pairs that were clipped instead (`estimator.rp_nonfinite = "clip"`), with zero for nan
    core_seconds: float = 0.0  # computing of the batch's samples, summed over workers; 0: not recorded
    inner_steps_total: int = 0  # of all updates so far; 0: not recorded
    cpu_seconds: float = 0.0  # as core_seconds, but CPU time of the workers' processes; 0: not recorded
    families: Mapping[str, FamilyRecord] = MappingProxyType({})  # of the batch, in a run with a mixture
    allocation: Allocation | None = None  # None: `estimator.allocate` is off

    @property
    def empty(self) -> bool:
        """Whether every pair was left out, so that the gradient was zero."""
        return self.rp_dropped > 0 and self.rp_pairs == 0

    def to_json(self) -> Json:
        """A line of history.jsonl. Later fields are written only where they say something."""
        fields = self._asdict()
        for name in CHANGED:
            del fields[name]
        sums = {name: value for name in SUMS if (value := fields.pop(name))}
        later: Json = {"rp_dropped": self.rp_dropped, "empty": self.empty} if self.rp_dropped else {}
        if self.var_rp_nonfinite:
            later["var_rp_nonfinite"] = self.var_rp_nonfinite
        if self.rp_clipped:
            later["rp_clipped"] = self.rp_clipped
        if self.allocation:
            later |= {"allocation": self.allocation._asdict()}
        if self.families:
            later["families"] = {name: family.to_json() for name, family in self.families.items()}
        return fields | {
            "verdicts": dict(self.verdicts),
            "windows": self.windows._asdict(),
            "staleness": self.staleness._asdict(),
            "weight_rp": {"mean": self.weight_rp.mean, **self.weight_rp.quantiles._asdict()},
            "var_rp": _writable(self.var_rp),
            "var_es": _writable(self.var_es),
            "gradient_norm": self.norms.gradient,
            "clipped": self.clipped,
            "update_norm": self.norms.update,
            "theta_norm": self.norms.theta,
            "refused": self.refused,
            **later,
            **sums,
        }

    @classmethod
    def from_json(cls, line: Mapping[str, Any]) -> "UpdateRecord":
        """The record of a line. Keys that it does not know are ignored.

        Raises:
          ValueError: a key is missing, or a value has another type.
        """
        windows, staleness, weight, verdicts = (
            _mapping(line, key) for key in ("windows", "staleness", "weight_rp", "verdicts")
        )
        families = _mapping(line, "families") if "families" in line else {}
        allocation = _mapping(line, "allocation") if "allocation" in line else {}
        return cls(
            epoch=_integer(line, "epoch"),
            version=_integer(line, "version"),
            time=_number(line, "time"),
            seconds=_number(line, "seconds"),
            verdicts={key: _integer(verdicts, key) for key in verdicts},
            loss=_number(line, "loss"),
            loss_plus=_number(line, "loss_plus"),
            loss_minus=_number(line, "loss_minus"),
            samples=_integer(line, "samples"),
            inner_steps=_integer(line, "inner_steps"),
            windows=Windows(_number(windows, "mean"), _integer(windows, "min"), _integer(windows, "max")),
            staleness=Staleness(_number(staleness, "mean"), _integer(staleness, "max")),
            diverged=_integer(line, "diverged"),
            finished=_integer(line, "finished"),
            workers_seen=_integer(line, "workers_seen"),
            rp_nonfinite=_integer(line, "rp_nonfinite"),
            weight_rp=Weight(_number(weight, "mean"), _quantiles(weight)),
            var_rp=_quantiles(_mapping(line, "var_rp")),
            var_es=_quantiles(_mapping(line, "var_es")),
            rp_fallback=_integer(line, "rp_fallback"),
            rp_pairs=_integer(line, "rp_pairs"),
            es_pairs=_integer(line, "es_pairs"),
            norms=Norms(*(_number(line, f"{name}_norm") for name in Norms._fields)),
            clipped=_number(line, "clipped"),
            refused=bool(_value(line, "refused", bool)),
            rp_dropped=_integer(line, "rp_dropped") if "rp_dropped" in line else 0,
            var_rp_nonfinite=_number(line, "var_rp_nonfinite") if "var_rp_nonfinite" in line else 0.0,
            rp_clipped=_integer(line, "rp_clipped") if "rp_clipped" in line else 0,
            core_seconds=_number(line, "core_seconds") if "core_seconds" in line else 0.0,
            inner_steps_total=_integer(line, "inner_steps_total") if "inner_steps_total" in line else 0,
            cpu_seconds=_number(line, "cpu_seconds") if "cpu_seconds" in line else 0.0,
            families={name: FamilyRecord.from_json(_mapping(families, name)) for name in families},
            allocation=Allocation(*(_number(allocation, k) for k in Allocation._fields)) if allocation else None,
        )


def expected_updates(config: OuterConfig, newest: UpdateRecord | None) -> int:
    """Outer updates of the whole run: where inner steps end it, as many as there will be if the rest are like the newest."""
    if newest is None or not config.inner_steps or not newest.inner_steps_total:
        return config.updates
    left = max(config.inner_steps - newest.inner_steps_total, 0)
    return min(config.updates, newest.version + math.ceil(left / max(newest.inner_steps, 1)))


def _value(line: Mapping[str, Any], key: str, *types: type) -> Any:
    value = line.get(key)
    if type(value) not in types:
        raise ValueError(f"{key} is {value!r:.40}, which a record of an update cannot hold")
    return value


def _integer(line: Mapping[str, Any], key: str) -> int:
    value = int(_value(line, key, int))
    if abs(value) >= 2**63:
        raise ValueError(f"{key} has more than 64 bits")
    return value


def _number(line: Mapping[str, Any], key: str) -> float:
    value = _value(line, key, float, int)
    try:
        return float(value)
    except OverflowError:
        raise ValueError(f"{key} is an integer that no float can hold") from None


def _mapping(line: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = _value(line, key, dict)
    return found


def _quantiles(line: Mapping[str, Any]) -> Quantiles:
    return Quantiles(*(_maybe(line, key) for key in Quantiles._fields))


def _maybe(line: Mapping[str, Any], key: str) -> float | None:
    """A number that may be infinite, or unknown."""
    if line.get(key) == jsonlines.INFINITY:
        return math.inf
    return None if _value(line, key, float, int, type(None)) is None else _number(line, key)


def _writable(quantiles: Quantiles) -> Json:
    return {key: jsonlines.writable(value) for key, value in quantiles._asdict().items()}
