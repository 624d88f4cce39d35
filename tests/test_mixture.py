"""Mixtures of task families: one family per sample, kept apart up to the merge, resumed bit for bit."""

import dataclasses
import json
import random
from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from helpers import learner as learning
from helpers import records, run_files
from helpers.in_process import compile_once, train
from helpers.learner import SEGMENTS, SIZE, sample

from cluster.cli.main import main
from cluster.jobs.candidates import loss_of
from cluster.jobs.families import FamilyPool
from cluster.jobs.job import InProcessPool, Job
from cluster.monitoring.metrics import LearnerMetrics
from cluster.planning.plan import durations
from cluster.report.family_plots import FAMILY_PLOTS
from cluster.report.material import Material, Plot
from cluster.runs import best, directory
from cluster.runs.directory import load_theta
from cluster.tracking.sink import scalars
from common import checkpoint, configfile, moments
from common.config import Config, CurriculumConfig, EstimatorConfig, MixtureConfig, TaskConfig, digest
from common.configfile import from_dict, parse
from common.errors import UserError
from common.messages import GradientSample, Reply, Verdict, encode_theta, pack_reply, pack_sample, unpack_sample
from common.moments import Moments
from common.task import open_tasks
from learner import rp_skipping
from learner import state as states
from learner.aggregator import Aggregator
from learner.deduplication import Deduplicator
from learner.history import read_history
from learner.merge import FLOOR, Rule, merge
from learner.outer_optimizer import OuterOptimizer
from workers.evaluation.results import BySplit
from workers.evaluation.results import parse as parse_unrolls
from workers.worker import Engine, Worker, make_engine

TOML = """
[task]
inner_steps = 9
batch_size = 4
classes = 3
[dataset]
image_size = 8
classes = 20
train_images = 6
valid_images = 5
test_images = 4
[optimizer]
family = "sgd"
learning_rate = 0.05
[estimator]
pairs = 2
[curriculum]
start = 2
end = 4
updates = 6
[outer]
updates = 12
batch_samples = 4
learning_rate = 0.01
[workers]
count = 3
[evaluation]
tasks = 2
rate_count = 2
[[mixture]]
name = "bowl"
weight = 2
task = { family = "quadratic", options = { dimension = 2 }, inner_steps = [5, 9] }
[[mixture]]
task = { family = "mlp", units = [3], normalizer = "classes" }
"""
TREE = parse(TOML, "the test's configuration")


@pytest.fixture(autouse=True)
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTERTRAIN_RUNS", str(tmp_path / "runs"))
    compile_once(monkeypatch)


def mixed(*overrides: str) -> Config:
    return from_dict(configfile.merge(TREE, overrides))


def theta(run: directory.RunDirectory) -> bytes:
    return load_theta(run)[0].tobytes()


# configuration


def test_mixture_written_and_read_is_the_same() -> None:
    config = mixed()
    assert from_dict(parse(configfile.dump(config), "it")) == config
    assert [(m.name, m.weight) for m in config.members] == [("bowl", 2 / 3), ("mlp", 1 / 3)]


def test_mixture_takes_what_it_leaves_out_from_task_and_dataset() -> None:
    bowl, mlp = (member.config for member in mixed().members)
    assert (mlp.task.inner_steps, mlp.task.batch_size, mlp.dataset.image_size) == (9, 4, 8)
    assert bowl.task.inner_steps == (5, 9) and bowl.mixture == mlp.mixture == ()


def test_override_of_a_family_is_by_its_name() -> None:
    config = mixed("mixture.bowl.weight=5", "mixture.mlp.task.units=4,4", "mixture.mlp.name=net")
    assert config.mixture[0].weight == 5 and config.mixture[1].task.units == (4, 4)
    assert config.members[1].name == "net"


def test_windows_of_a_family_end_with_its_inner_problem() -> None:
    config = mixed("curriculum.end=9", "mixture.bowl.task.inner_steps=[3,5]")
    assert [member.config.curriculum.end for member in config.members] == [5, 9]
    with pytest.raises(UserError, match=r"10 steps, longer than the inner problem \(task.inner_steps = 9\)"):
        mixed("curriculum.end=10")


@pytest.mark.parametrize(
    "override, sentence",
    [
        ("mixture.bowl.weight=0", "in the mixture's family 'bowl', mixture.weight = 0.0: must be more than 0"),
        ("mixture.mlp.task.normalizer=0", "in the mixture's family 'mlp', task.normalizer = 0.0: must be more than 0"),
        ("mixture.mlp.task.units=0", "task.units = [0]: each must be at least 1"),
        ("mixture.mlp.wait=1", "unknown key mixture.mlp.wait: did you mean mixture.mlp.weight?"),
        ("mixture.mlp.name=bowl", "two families of the mixture are called 'bowl': give each a mixture.name"),
        ("mixture.mlp.name=a b", "mixture.name = 'a b': up to 64 letters"),
        ("mixture.net.weight=1", "the mixture has no family 'net': it has bowl, mlp"),
        ("mixture.mlp=1", "name a family and its key"),
        ("task.family=conv", "each family of the mixture sets task.family itself; write mixture.bowl.task.family=conv"),
        ("mixture=x", "mixture.conv = 'x' is a value, but a section is expected"),
        ("estimator.pairs=1", "estimator.pairs = 1: a mixture needs 2 or more pairs"),
    ],
)
def test_impossible_mixture_is_rejected_with_a_sentence(override: str, sentence: str) -> None:
    with pytest.raises(UserError) as refusal:
        mixed(override)
    assert sentence in str(refusal.value)


@pytest.mark.parametrize(
    "override, sentence",
    [
        ("mixture.mlp.task.classes=13", "the mixture's family 'mlp': the dataset has 6 outer_test classes, too few"),
        ("mixture.bowl.task.normalizer=classes", "the mixture's family 'bowl': task.normalizer = 'classes' is for"),
        (
            "mixture.mlp.task.family=nothing:task",
            "the mixture's family 'nothing.task': task.family = 'nothing:task' cannot",
        ),
    ],
)
def test_family_that_cannot_be_opened_is_named(override: str, sentence: str) -> None:
    with pytest.raises(UserError) as refusal:
        open_tasks(mixed(override))
    assert sentence in str(refusal.value)


def test_digest_covers_the_mixture_and_no_paths() -> None:
    config = mixed()
    changed = [mixed("mixture.bowl.weight=1"), mixed("mixture.mlp.task.units=4"), mixed("mixture.mlp.dataset.seed=1")]
    assert len({digest(one, "f") for one in (config, *changed)}) == 4
    moved = [
        mixed("mixture.mlp.dataset.source=store", f"mixture.mlp.dataset.path={path}", "task.units=1,1,1")
        for path in ("/a", "/b")
    ]
    assert digest(moved[0], "f") == digest(moved[1], "f")
    later = dataclasses.replace(config.mixture[1], task=LaterTask(**dataclasses.asdict(config.mixture[1].task)))
    assert digest(dataclasses.replace(config, mixture=(config.mixture[0], later)), "f") == digest(config, "f")


@dataclasses.dataclass(frozen=True)
class LaterTask(TaskConfig):
    """The section of a later release, with one more key."""

    later: int = 3


# workers


class Script:
    """A learner that records samples and always answers the same theta."""

    def __init__(self, run: Config, ramps: tuple[int, ...] = ()):
        self.digest, self.samples, self.ramps = digest(run, open_tasks(run).fingerprint), list[bytes](), ramps

    def exchange(self, payload: bytes | None, epoch: int, version: int) -> bytes:
        if payload is not None:
            self.samples.append(payload)
        values = encode_theta(np.array([0.05, 0.5], np.float32))
        return pack_reply(Reply(Verdict.accepted, 1, 0, self.digest, values, False, 1.0, self.ramps))


@cache
def engine() -> Engine:
    """Of `mixed()`."""
    return make_engine(mixed())


def worked(run: Config, steps: int, shared: Engine | None = None, ramps: tuple[int, ...] = ()) -> tuple[Worker, Script]:
    script = Script(run, ramps)
    worker = Worker(run, "w0", script.exchange, shared)
    for _ in range(steps + 1):
        worker.step()
    return worker, script


@pytest.mark.heavy
def test_worker_draws_families_by_their_weights() -> None:
    _worker, script = worked(mixed(), 120, engine())
    made = [unpack_sample(payload) for payload in script.samples]
    bowls = sum(one.family == "bowl" for one in made)
    assert {one.family for one in made} == {"bowl", "mlp"}
    assert abs(bowls - 80) < 4 * np.sqrt(120 * 2 / 9)  # false alarm: 6e-5
    assert all(len(one.windows) == 2 and one.es.mean.size == 2 for one in made)
    normalized = [loss for one in made if one.family == "mlp" for loss in one.loss_plus]
    assert 0.5 < np.mean(normalized) < 1.5  # that of a guess is 1


@pytest.mark.heavy
def test_worker_compiles_nothing_after_the_first_of_each_family() -> None:
    worker, script = worked(mixed(), 0)
    while len({unpack_sample(payload).family for payload in script.samples}) < 2:
        worker.step()
    sizes = [(s.unroll._on_tape._cache_size(), s.unroll._reverse._cache_size()) for s in worker.samplers]
    assert sizes == [(1, 1), (1, 1)]
    for _ in range(20):
        worker.step()
    assert sizes == [(s.unroll._on_tape._cache_size(), s.unroll._reverse._cache_size()) for s in worker.samplers]


@pytest.mark.heavy
def test_worker_restored_with_a_mixture_resumes_bit_for_bit() -> None:
    run = mixed()
    worker, script = worked(run, 7, engine())
    resumed = Worker(run, "w0", script.exchange, engine())
    resumed.restore(worker.snapshot())
    resumed.fetch()
    for _ in range(6):
        left, right = worker.sample(), resumed.sample()
        assert (left.family, left.loss_plus, left.windows) == (right.family, right.loss_plus, right.windows)
        np.testing.assert_array_equal(left.rp.mean, right.rp.mean)
    assert worker.snapshot() == resumed.snapshot()


@pytest.mark.heavy
def test_worker_takes_the_window_of_its_family() -> None:
    """The ramps of a reply are in the order of the families of the configuration."""
    run = mixed("curriculum.jitter=0", "curriculum.stagger=false")
    _, script = worked(run, 8, engine(), ramps=(0, 3))
    made = [unpack_sample(payload) for payload in script.samples]
    for family, window in (("bowl", 2), ("mlp", 3)):  # of a ramp from 2 to 4 in six updates
        first = next(one for one in made if one.family == family)
        assert set(first.windows) == {window}


@pytest.mark.heavy
def test_compilations_are_those_of_every_family() -> None:
    worker, _ = worked(mixed(), 0, engine())
    assert {"reverse", "start", "1-reverse", "1-start"} <= worker.compilations().keys()


# wire


def test_sample_with_a_family_survives_the_wire() -> None:
    made = sample(pairs=2, family="bowl")
    assert unpack_sample(pack_sample(made)).family == "bowl"
    assert len(pack_sample(made)) == len(pack_sample(made._replace(family=""))) + 5


def test_pack_sample_with_a_family_gives_the_golden_bytes() -> None:
    """The wire format of schema 2."""
    made = sample(
        worker="w0",
        sequence=3,
        size=1,
        digest="ab",
        windows=(20,),
        loss_plus=(1.5,),
        loss_minus=(2.0,),
        rp=moments.of(np.array([[1.0]])),
        es=moments.of(np.array([[0.5]])),
        seconds=0.25,
        family="net",
    )._replace(facts=sample().facts._replace(inner_steps=None))
    golden = (
        "dc0011b16f75746572747261696e2f73616d706c6502a27730030100a26162a5747261696e91149100"
        "91cb3ff800000000000091cb4000000000000000"
        "9301c408000000000000f03fc09301c408000000000000e03fc0cb3fd000000000000080a36e6574"
    )
    assert pack_sample(made).hex() == golden
    assert unpack_sample(bytes.fromhex(golden)).family == "net"


def test_sample_of_an_unknown_family_is_malformed(tmp_path: Path) -> None:
    settings = dataclasses.replace(mixed(), outer=learning.config().outer)
    learner = learning.start(tmp_path, settings)
    made = {
        name: learning.send(learner, sample("w0", k, pairs=2, family=name, windows=(3, 3), epoch=1)).verdict
        for k, name in enumerate(("bowl", "mlp", "", "else"))
    }
    assert made == {
        "bowl": Verdict.accepted,
        "mlp": Verdict.accepted,
        "": Verdict.malformed,
        "else": Verdict.malformed,
    }


def test_aggregator_keeps_families_apart(tmp_path: Path) -> None:
    settings = dataclasses.replace(mixed(), outer=learning.config(batch_samples=6).outer)
    learner, direct = learning.start(tmp_path / "a", settings), learning.start(tmp_path / "b", settings)
    sent = []

    def exchange(payload: bytes | None, epoch: int, version: int) -> bytes:
        sent.extend([] if payload is None else [unpack_sample(payload)])
        return learner.exchange(payload, epoch, version)

    aggregator = Aggregator(settings, "a-1", exchange, 6)
    for k in range(6):
        made = sample(f"w{k}", 0, pairs=2, family=("bowl", "mlp", "mlp")[k % 3], windows=(3, 3))
        assert learning.send(aggregator, made).verdict is Verdict.accepted
        assert learning.send(direct, made).verdict is Verdict.accepted
    assert [(one.family, len(one.windows)) for one in sent] == [("bowl", 4), ("mlp", 8)]
    assert learner.status().version == direct.status().version == 1
    ours, theirs = (np.frombuffer(learning.ask(x).theta or b"", "<f4") for x in (learner, direct))
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-7)
    [one], [other] = read_history(tmp_path / "a"), read_history(tmp_path / "b")
    assert one.families["mlp"].samples == other.families["mlp"].samples == 4
    assert one.families["mlp"].var_es == pytest.approx(other.families["mlp"].var_es)


# merge


def of_family(name: str, shift: float, seed: int, count: int = 4) -> list:
    """Samples of two pairs each, whose gradients differ from those of other families by `shift`."""
    draws = np.random.default_rng(seed)
    return [
        sample(
            f"{name}{k}",
            pairs=2,
            family=name,
            rp=moments.of(shift + draws.normal(0, 0.3, (2, SIZE))),
            es=moments.of(shift + draws.normal(0, 3.0, (2, SIZE))),
        )
        for k in range(count)
    ]


@pytest.mark.parametrize("granularity", ["coordinate", "tensor", "scalar"])
@pytest.mark.parametrize("cross_fit", [False, True])
def test_weights_ignore_how_much_the_families_differ(granularity: str, cross_fit: bool) -> None:
    rule = Rule(EstimatorConfig(merge=granularity, cross_fit=cross_fit), SEGMENTS)
    near = merge([*of_family("a", 0.0, 1), *of_family("b", 0.0, 2)], rule)
    far = merge([*of_family("a", -1e3, 1), *of_family("b", 1e3, 2)], rule)
    np.testing.assert_allclose(far.weight_rp, near.weight_rp, rtol=1e-9)
    np.testing.assert_allclose(far.gradient, near.gradient, atol=1e-9)
    blind = merge([one._replace(family="") for one in (*of_family("a", -1e3, 1), *of_family("b", 1e3, 2))], rule)
    assert np.abs(blind.weight_rp - 0.5).max() < 1e-3 < 0.4 < near.weight_rp.mean() - 0.5


def row(name: str, rp: list[float], es: list[float]) -> GradientSample:
    """A sample of one coordinate; no rp: it was skipped."""
    rp_moments, es_moments = (
        moments.of(np.array(values)[:, None]) if values else moments.empty(1) for values in (rp, es)
    )
    return sample(name, pairs=len(es), family=name, rp=rp_moments, es=es_moments)


A = row("a", [9.0, 11.0], [100.0, 104.0])  # sums of squared deviations 2 and 8, with 1 degree of freedom
B = row("b", [-np.sqrt(2), 0.0, np.sqrt(2)], [-np.sqrt(0.5), 0.0, np.sqrt(0.5)])  # 4 and 1, with 2


def test_weights_are_of_pooled_deviations_by_hand() -> None:
    """Pooled: 6 / 3 and 9 / 3."""
    merged = merge([A, B], Rule(EstimatorConfig(merge="coordinate"), np.array([0])))
    np.testing.assert_allclose(moments.variance(merged.within.rp), 6 / 3, rtol=1e-12)
    np.testing.assert_allclose(moments.variance(merged.within.es), 9 / 3, rtol=1e-12)
    assert merged.weight_rp[0] == pytest.approx(3 / 5)
    assert merged.gradient[0] == pytest.approx(0.6 * 20 / 5 + 0.4 * 204 / 5)


BY_FAMILY = Rule(EstimatorConfig(merge="family"), np.array([0]))


def test_weights_by_family_by_hand() -> None:
    """a: variances 2 and 8, so a weight of 0.8; b: 2 and 0.5, so 0.2. The gradient is the mean over five pairs."""
    merged = merge([A, B], BY_FAMILY)
    assert merged.weight_rp[0] == pytest.approx((2 * 0.8 + 3 * 0.2) / 5)
    assert merged.gradient[0] == pytest.approx(2 / 5 * (0.8 * 10 + 0.2 * 102))


@pytest.mark.parametrize("wild", [1e9, 1e200, np.inf, np.nan])
def test_explosion_in_one_family_leaves_the_others_weights(wild: float) -> None:
    exploded = row("b", [0.0, 1.0, wild], [-1.0, 0.0, 1.0])
    merged = merge([A, exploded], BY_FAMILY)
    assert merged.weight_rp[0] == pytest.approx(2 / 5 * 0.8)
    assert merged.gradient[0] == pytest.approx(2 / 5 * (0.8 * 10 + 0.2 * 102), rel=1e-6)
    assert merge([A, exploded], Rule(EstimatorConfig(), np.array([0]))).weight_rp[0] < 1e-9


def test_weights_of_probes_are_of_the_past_of_their_family() -> None:
    """One probe of a, and rp skipped in b, which stays with es."""
    probed, skipped = row("a", [10.0], [100.0, 104.0]), row("b", [], [-1.0, 1.0])
    past = {"a": moments.of(np.array([[0.0], [2.0]])), "b": moments.of(np.array([[0.0], [1e6]]))}
    merged = merge([probed, skipped], BY_FAMILY, past)
    assert merged.weight_rp[0] == pytest.approx(0.5 * (8 / 2) / (2 + 8 / 2))  # variances of the means: 2 / 1 and 8 / 2


def test_weight_by_family_without_a_mixture_is_the_scalar_one() -> None:
    batch = [one._replace(family="") for one in of_family("a", 0.5, 3)]
    own, scalar = (
        merge(batch, Rule(EstimatorConfig(merge=granularity), SEGMENTS)) for granularity in ("family", "scalar")
    )
    np.testing.assert_array_equal(own.gradient, scalar.gradient)
    np.testing.assert_array_equal(own.weight_rp, scalar.weight_rp)


def test_pooled_moments_of_one_group_are_that_group() -> None:
    one = moments.of(np.random.default_rng(0).normal(size=(5, 3)))
    assert moments.pooled([moments.empty(3), one], 3) is one
    assert moments.pooled([], 3).count == 0


def test_pooled_moments_keep_what_is_not_finite() -> None:
    bad = Moments(2, np.array([np.nan, 1.0]), np.array([np.nan, 1.0]))
    both = moments.pooled([bad, moments.of(np.ones((3, 2)))], 2)
    assert both.count == 4 and np.isinf(moments.variance(both)).tolist() == [True, False]


def test_past_variance_is_within_the_families() -> None:
    es = {"a": moments.of(np.random.default_rng(9).normal(size=(4, SIZE)))}
    state = rp_skipping.start(SIZE, ["a", "b"])
    draws, spreads = np.random.default_rng(0), {"a": 0.5, "b": 2.0}
    for _ in range(12):
        rp = {name: moments.of(draws.normal(1e6 * spread, spread, (2, SIZE))) for name, spread in spreads.items()}
        state = rp_skipping.observe(state, rp, es, FLOOR)
    expected = (0.5**2 + 2.0**2) / 2  # with the means of the families, 1.5e6 apart, it would be 5e11
    of_one = np.sqrt(2 * 23 * (0.5**4 + 2.0**4)) / 46  # standard error; 24 draws of each family are remembered
    assert abs(rp_skipping.past_variance(state).mean() - expected) < 4 * of_one / np.sqrt(SIZE)
    assert set(state.newer) == {"a", "b"}


def held(state: rp_skipping.SkippingState, scales: dict[str, float], seed: int = 0) -> rp_skipping.SkippingState:
    """The state after a batch with four pairs of each of these families, whose rp has this scale."""
    draws = np.random.default_rng(seed)
    rp = {name: moments.of(draws.normal(0, scale, (4, SIZE))) for name, scale in scales.items()}
    es = {name: moments.of(draws.normal(0, 1, (4, SIZE))) for name in scales}
    return rp_skipping.observe(state, rp, es, FLOOR, np.full(SIZE, 0.5))


def test_each_family_holds_its_own_window() -> None:
    """A batch moves the ramps of its families. An explosion shortens the windows of its own family, by BACK steps for each
    family that there is.
    """
    settings = dataclasses.replace(
        mixed(),
        estimator=EstimatorConfig(pairs=2, probe_rate=0.5, allocate=True),
        curriculum=CurriculumConfig(start=2, end=4, updates=12, hold=True),
    )
    state = rp_skipping.of(settings, SIZE)
    assert state is not None and state.ramp is not None
    for k in range(10):
        state = held(state, {"bowl": 0.01, "mlp": 0.01} if k < 9 else {"mlp": 0.01}, k)
    assert state.ramp.at == {"bowl": 9, "mlp": 10}
    state = held(state, {"bowl": 1e6, "mlp": 0.01})
    assert state.ramp.at == {"bowl": 9 - 2 * rp_skipping.BACK, "mlp": 11}
    state = held(held(state, {"bowl": 1e30}), {"mlp": 0.01})
    assert state.ramp.at == {"bowl": 0, "mlp": 12} == held(state, {"mlp": 0.01}).ramp.at


def test_recorded_ramps_are_in_the_order_of_the_families() -> None:
    fresh = rp_skipping.Ramp({"bowl": 0, "mlp": 0}, 12)
    assert rp_skipping.ramp_from_record([3, 7], fresh) == fresh._replace(at={"bowl": 3, "mlp": 7})
    assert rp_skipping.ramp_from_record(5, fresh).at == {"bowl": 5, "mlp": 5}


def test_state_with_families_survives_its_record() -> None:
    settings = dataclasses.replace(
        mixed(), estimator=EstimatorConfig(pairs=2, probe_rate=0.5), outer=learning.config().outer
    )
    made = OuterOptimizer(settings.outer)
    state = states.initial(settings, learning.THETA, made)
    rule = Rule(settings.estimator, SEGMENTS)
    batch = [*of_family("bowl", 0.0, 1), *of_family("mlp", 5.0, 2)]
    state = states.advance(state, states.merge_batch(state, batch, rule), made)[0]
    record = checkpoint.unpack(checkpoint.pack(states.to_record(1, "d", state, Deduplicator(), {})))
    kept = states.from_record(record, states.initial(settings, learning.THETA, made))[0].skipping
    assert kept is not None and kept.recent == state.skipping.recent and kept.newer.keys() == {"bowl", "mlp"}
    for name in kept.newer:
        np.testing.assert_array_equal(kept.newer[name].mean, state.skipping.newer[name].mean)


# runs


@pytest.mark.heavy
def test_mixture_of_one_family_trains_as_the_family_alone() -> None:
    task = {"family": "quadratic", "inner_steps": 9, "options": {"dimension": 2}}
    tree = {**{key: value for key, value in TREE.items() if key != "mixture"}, "task": task}
    alone = train("alone", from_dict(tree))
    one = train("one", from_dict({**tree, "mixture": [{"name": "bowl"}]}))
    assert theta(one) == theta(alone)


@pytest.mark.heavy
@pytest.mark.parametrize("overrides", [(), ("estimator.probe_rate=0.5", "estimator.cross_fit=true")])
def test_mixture_killed_anywhere_and_resumed_is_the_same(overrides: tuple[str, ...]) -> None:
    wanted = mixed(*overrides)
    uninterrupted = train("uninterrupted", wanted)
    for steps in (0, 1, 3, 5, 4):
        train("killed", wanted, steps)
    killed = train("killed", wanted)
    assert theta(killed) == theta(uninterrupted)
    ours, theirs = read_history(killed.path), read_history(uninterrupted.path)
    assert [line.families for line in ours] == [line.families for line in theirs]
    seen = [name for line in ours for name in line.families]
    assert set(seen) == {"bowl", "mlp"} and sum(f.samples for line in ours for f in line.families.values()) == 48


@pytest.mark.heavy
def test_resume_with_another_mixture_is_rejected() -> None:
    from cluster.runs.open import Request, resume

    train("mine", mixed(), 3)
    with pytest.raises(UserError, match=r"another \[mixture\]"):
        resume(Request(None, "mine", ("mixture.bowl.weight=1",), resume=True))
    assert resume(Request(None, "mine", ("outer.updates=20",), resume=True)).config.outer.updates == 20


@pytest.mark.heavy
def test_history_shows_each_family() -> None:
    [*lines] = read_history(train("mine", mixed()).path)
    for line in lines:
        assert sum(family.samples for family in line.families.values()) == line.samples
        weighed = sum(family.loss * family.samples for family in line.families.values()) / line.samples
        assert weighed == pytest.approx(line.loss)
        assert all(family.var_es > 0 and 0 <= family.weight_rp <= 1 for family in line.families.values())


def test_mixture_entry_of_defaults_is_the_default_task() -> None:
    assert MixtureConfig().label == "conv" and Config(mixture=(), task=TaskConfig()).members[0].name == ""


# what is shown


@pytest.mark.heavy
def test_metrics_show_each_family() -> None:
    metrics = LearnerMetrics()
    record = read_history(train("mine", mixed()).path)[0]
    metrics.observe_update(record, "train", 0.1)
    for name, family in record.families.items():
        label = {"family": name}
        assert metrics.registry.get_sample_value("outertrain_family_outer_loss", label) == family.loss
        assert metrics.registry.get_sample_value("outertrain_family_samples_total", label) == family.samples
        both = {**label, "estimator": "es"}
        assert metrics.registry.get_sample_value("outertrain_family_variance", both) == family.var_es
    assert scalars(record)["loss_bowl"] == record.families["bowl"].loss


@pytest.mark.heavy
@pytest.mark.parametrize("plot", FAMILY_PLOTS, ids=lambda plot: plot.name)
def test_family_plot_has_a_line_for_each_family(plot: Plot) -> None:
    history = read_history(train("mine", mixed()).path)
    figure = plot.draw(Material(history, [], None, "train"))
    assert figure is not None and [line.get_label() for line in figure.axes[0].lines] == ["bowl", "mlp"]
    assert plot.draw(Material([line._replace(families={}) for line in history], [], None, "train")) is None


def test_plan_draws_families_by_weight_and_pace() -> None:
    config = mixed("curriculum.start=4", "curriculum.end=4", "curriculum.jitter=0", "mixture.bowl.task.inner_steps=4")
    config = dataclasses.replace(
        config, mixture=(config.mixture[0], dataclasses.replace(config.mixture[1], weight=2.0))
    )
    drawn = durations(config, 0, (1.0, 100.0))(random.Random(0))
    found = [next(drawn) for _ in range(400)]
    assert abs(sum(x == 8.0 for x in found) - 200) < 4 * 10 and max(found) == 800.0


def test_history_line_without_a_mixture_has_no_families() -> None:
    line = records.record(1)
    assert "families" not in line.to_json() and line.families == {}


# evaluation


def shown(capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    found: dict[str, object] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return found


@pytest.mark.heavy
def test_train_evaluates_each_family_in_a_folder_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_files.draw_nothing(monkeypatch)
    (tmp_path / "mix.toml").write_text(TOML)
    assert main(["train", str(tmp_path / "mix.toml"), "--in-process", "--updates", "2", "--json"]) == 0
    facts = shown(capsys)
    run = directory.find("mix")
    assert facts["families"].keys() == {"bowl", "mlp"}
    for name, numbers in facts["families"].items():
        assert numbers["tasks"] == 2 and numbers["ratio"] > 0
        assert (run.path / "families" / name / "report" / "index.html").is_file()
        assert run.of_family(name).config().mixture == ()
    page = run.page.read_text()
    assert "On unseen tasks of each family" in page and "../families/mlp/report/index.html" in page
    assert main(["evaluate", "mix", "--in-process"]) == 0
    table = capsys.readouterr().err.partition("on unseen tasks of each family")[2].splitlines()
    assert [line.split()[0] for line in table[1:4]] == ["family", "bowl", "mlp"]
    assert main(["evaluate", "mix", "--in-process", "--family", "mlp", "--json"]) == 0
    again = shown(capsys)["families"]
    assert again.keys() == {"mlp"} and again["mlp"]["learned_mean"] == facts["families"]["mlp"]["learned_mean"]


@pytest.mark.heavy
def test_best_version_of_a_mixture_is_the_least_geometric_mean(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_files.draw_nothing(monkeypatch)
    (tmp_path / "mix.toml").write_text(TOML)
    arguments = ["--in-process", "--updates", "4", "--no-evaluate", "--set", "evaluation.every=2"]
    assert main(["train", str(tmp_path / "mix.toml"), *arguments]) == 0
    run = directory.find("mix")
    found = best.read(run)
    assert found is not None and found.families == 2 and found.evaluated >= 2
    lines = list(map(json.loads, (run.evaluation / "unrolls.jsonl").read_text().splitlines()))
    weights = {member.name: member.weight for member in run.config().members}
    means = {
        version: np.exp(
            sum(
                weight
                * np.log(np.mean([x["mean_train"] for x in lines if (x["member"], x["version"]) == (name, version)]))
                for name, weight in weights.items()
            )
        )
        for version, jobs in Counter(line["version"] for line in lines).items()
        if jobs == 4  # two tasks of two families
    }
    assert found.version == min(means, key=lambda version: means[version])
    np.testing.assert_allclose(found.loss, means[found.version], rtol=1e-12)
    assert main(["train", "--name", "mix", "--resume", "--updates", "6", "--in-process", "--no-evaluate"]) == 0
    again = best.read(run)
    assert again is not None and again.evaluated > found.evaluated
    assert "geometric mean over 2 families of the train loss" in again.sentence()


def test_mixture_with_negative_losses_has_no_geometric_mean() -> None:
    one, *_ = [u for u in parse_unrolls(run_files.unrolls(tasks=1, starts=1)) if u.optimizer == "learned"]

    def loss(bowl: float) -> float:
        means = {"bowl": bowl, "mlp": 4.0}
        found = [dataclasses.replace(one, member=name, means=BySplit(*[mean] * 3)) for name, mean in means.items()]
        return loss_of(found, mixed())

    assert loss(0.5) == pytest.approx(0.5 ** (2 / 3) * 4 ** (1 / 3))
    assert loss(0.0) == 0 and np.isnan(loss(-0.5))


@pytest.mark.heavy
@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (["evaluate", "mine", "--family", "net"], "--family net: the configuration has bowl, mlp"),
        (["search", "mine"], "a search is on the tasks of one family"),
    ],
)
def test_command_that_a_mixture_does_not_have_is_rejected(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    train("mine", mixed(), 4)
    assert main([*arguments, "--in-process"]) == 2
    assert sentence in " ".join(capsys.readouterr().err.split())


def test_family_pool_tags_jobs_and_keeps_to_its_own() -> None:
    inner = InProcessPool(lambda spec: {"item": spec["item"], "member": spec.get("member")})
    one, other = FamilyPool(inner, "bowl"), FamilyPool(inner, "mlp")
    one.submit(Job("a", {"item": "a"}))
    assert other.collect() == []
    one.submit(Job("a", {"item": "a"}))
    [ended] = one.collect()
    assert ended.result == {"item": "a", "member": "bowl"}


@pytest.mark.parametrize("name", [".", "..", "../other", "-x", "a" * 65])
def test_family_name_that_is_no_folder_name_is_refused(name):
    """The results of a family are in a folder of its name: ".." would be the run's own, whose configuration it would replace."""
    with pytest.raises(UserError, match=r"mixture\.name = .*: up to 64 letters"):
        MixtureConfig(name=name)
