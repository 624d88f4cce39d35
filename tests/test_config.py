"""Impossible values are rejected with a sentence; the digest covers what decides the meaning of a sample, and no more."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from typing import Any

import pytest

from common import configfile
from common.config import (
    Config,
    CurriculumConfig,
    DatasetConfig,
    EstimatorConfig,
    EvaluationConfig,
    MetricsConfig,
    MixtureConfig,
    OptimizerConfig,
    OuterConfig,
    TaskConfig,
    WorkersConfig,
    digest,
    stable_tree,
)
from common.config.key import Section, entries
from common.config.tracking import TrackingConfig
from common.errors import UserError

DIGESTED = ("task", "dataset", "mixture", "optimizer", "estimator", "curriculum")
IMPOSSIBLE = [
    (TaskConfig, {"family": "convolution"}, "use one of conv, residual, mlp, "),
    (TaskConfig, {"family": "a:b:c"}, "module:name"),
    (TaskConfig, {"family": ":function"}, "module:name"),
    (TaskConfig, {"family": "my module:function"}, "module:name"),
    (TaskConfig, {"units": (4, 4), "strides": (1,)}, "one stride per convolution"),
    (TaskConfig, {"units": (4, 0), "strides": (1, 1)}, "task.units = [4, 0]: each must be at least 1"),
    (TaskConfig, {"units": (4, 4), "strides": (1, 0)}, "task.strides"),
    (TaskConfig, {"options": {"dimension": 3}}, "task.options has dimension"),
    (TaskConfig, {"options": {"dimensions": 3}, "family": "quadratic"}, "task.options has dimensions"),
    (TaskConfig, {"classes": 1}, "at least 2"),
    (TaskConfig, {"batch_size": 0}, "task.batch_size = 0"),
    (TaskConfig, {"inner_steps": 0}, "task.inner_steps = 0"),
    (TaskConfig, {"inner_steps": (0, 5)}, "task.inner_steps = [0, 5]: each must be at least 1"),
    (TaskConfig, {"inner_steps": (6, 5)}, "[shortest, longest]"),
    (TaskConfig, {"inner_steps": (5,)}, "[shortest, longest]"),
    (TaskConfig, {"inner_steps": ()}, "[shortest, longest]"),
    (TaskConfig, {"normalizer": "log"}, "none, initial, classes or a number"),
    (DatasetConfig, {"source": "imagenet"}, "procedural, store"),
    (DatasetConfig, {"source": "store"}, "data prepare"),
    (DatasetConfig, {"image_size": 7}, "8 .. 64"),
    (DatasetConfig, {"image_size": 65}, "8 .. 64"),
    (DatasetConfig, {"classes": 1}, "dataset.classes = 1"),
    (DatasetConfig, {"valid_images": 0}, "at least 1"),
    (DatasetConfig, {"valid_fraction": 0.0}, "more than 0 and less than 1"),
    (DatasetConfig, {"valid_fraction": 1.0}, "more than 0 and less than 1"),
    (DatasetConfig, {"seed": -1}, "dataset.seed = -1"),
    (OptimizerConfig, {"family": "lion"}, "mlp, adam, rmsprop, sgd, adam8"),
    (OptimizerConfig, {"hidden": 0}, "optimizer.hidden = 0"),
    (OptimizerConfig, {"learning_rate": 0.0}, "optimizer.learning_rate = 0.0: must be more than 0"),
    (EstimatorConfig, {"use": "both"}, "merged, rp, es"),
    (EstimatorConfig, {"es": "pes"}, "truncated, persistent, noise_reuse"),
    (EstimatorConfig, {"objective": "test"}, "train, valid"),
    (EstimatorConfig, {"objective": "valid"}, "estimator.outer_batches of at least 1"),
    (EstimatorConfig, {"outer_loss": "last", "es": "persistent", "use": "es"}, "is the end of a truncation"),
    (EstimatorConfig, {"outer_loss": "last", "es": "noise_reuse", "use": "es"}, "set estimator.es = 'truncated'"),
    (EstimatorConfig, {"merge": "layer"}, "coordinate, tensor, scalar"),
    (EstimatorConfig, {"es": "persistent", "use": "rp"}, "estimator.use = 'es' or 'merged'"),
    (EstimatorConfig, {"es": "persistent", "cross_fit": True}, "leave it false"),
    (EstimatorConfig, {"es": "persistent", "rp_variance": "recent"}, "leave it 'batch'"),
    (EstimatorConfig, {"rp_variance": "past"}, "batch, recent"),
    (EstimatorConfig, {"merge": "family", "cross_fit": True}, "set estimator.cross_fit = false"),
    (EstimatorConfig, {"merge": "family", "es": "persistent"}, "or estimator.merge = 'scalar'"),
    (EstimatorConfig, {"es": "noise_reuse"}, "estimator.use = 'es'"),
    (EstimatorConfig, {"es": "noise_reuse", "use": "rp"}, "estimator.use = 'es'"),
    (EstimatorConfig, {"reach": 1}, "estimator.reach needs"),
    (EstimatorConfig, {"reach": 1, "es": "persistent", "use": "es"}, "estimator.reach needs"),
    (EstimatorConfig, {"reach": -1, "es": "persistent"}, "at least 0"),
    (EstimatorConfig, {"sigma": -0.1}, "at least 0 (0 only with estimator.use = 'rp')"),
    (EstimatorConfig, {"sigma": 0.0}, "leaves es undefined"),
    (EstimatorConfig, {"sigma": 0.0, "use": "es"}, "leaves es undefined"),
    (EstimatorConfig, {"pairs": 0}, "estimator.pairs = 0"),
    (EstimatorConfig, {"probe_rate": 0.0}, "more than 0 and at most 1"),
    (EstimatorConfig, {"probe_rate": 1.5}, "more than 0 and at most 1"),
    (EstimatorConfig, {"allocate": True}, "a probe_rate below 1"),
    (EstimatorConfig, {"allocate": True, "probe_rate": 0.1, "use": "es"}, "estimator.use = 'merged'"),
    (EstimatorConfig, {"rp_cost": 0.0}, "estimator.rp_cost = 0.0: must be more than 0 and at most 100"),
    (EstimatorConfig, {"clamp": 0.0}, "must be more than 0"),
    (EstimatorConfig, {"outer_batches": -1}, "at least 0"),
    (CurriculumConfig, {"start": 0}, "at least 1"),
    (CurriculumConfig, {"end": 0}, "at least 1"),
    (CurriculumConfig, {"updates": -1}, "at least 0"),
    (CurriculumConfig, {"jitter": 1.0}, "at least 0 and less than 1"),
    (CurriculumConfig, {"jitter": -0.1}, "at least 0 and less than 1"),
    (OuterConfig, {"schedule": "linear"}, "constant, cosine"),
    (OuterConfig, {"clip": "norm"}, "none, global_norm, elementwise"),
    (OuterConfig, {"updates": 0}, "outer.updates = 0"),
    (OuterConfig, {"batch_samples": 0}, "outer.batch_samples = 0"),
    (OuterConfig, {"learning_rate": -1.0}, "must be more than 0"),
    (OuterConfig, {"clip_value": 0.0}, "must be positive"),
    (OuterConfig, {"max_staleness": -2}, "no limit"),
    (OuterConfig, {"keep_checkpoints": 1}, "at least 2 (so that a corrupt one has a predecessor)"),
    (OuterConfig, {"keep_every": -1}, "outer.keep_every = -1"),
    (WorkersConfig, {"count": 0}, "at least 1"),
    (WorkersConfig, {"segment": 0}, "workers.segment = 0"),
    (EvaluationConfig, {"tasks": -1}, "evaluation.tasks = -1: must be at least 0"),
    (EvaluationConfig, {"every": -1}, "evaluation.every = -1: must be at least 0"),
    (EvaluationConfig, {"initialisations": 0}, "at least 1"),
    (EvaluationConfig, {"baselines": ("adam", "adan")}, "adam, rmsprop, sgd, adamw"),
    (EvaluationConfig, {"rate_low": 0.0}, "more than 0"),
    (EvaluationConfig, {"rate_low": 1.0, "rate_high": 0.1}, "rate_low < rate_high"),
    (EvaluationConfig, {"rate_count": 1}, "at least 2"),
    (EvaluationConfig, {"seed": -1}, "evaluation.seed = -1"),
    (MetricsConfig, {"port": -1}, "0 .. 65535"),
    (MetricsConfig, {"port": 65536}, "0 .. 65535"),
    (Config, {"seed": -1}, "seed = -1"),
]
EDGES = [
    (DatasetConfig, {"image_size": 8}),
    (DatasetConfig, {"image_size": 64}),
    (EstimatorConfig, {"sigma": 0.0, "use": "rp"}),
    (EstimatorConfig, {"objective": "valid", "outer_batches": 1}),
    (EstimatorConfig, {"es": "persistent", "use": "es"}),
    (EstimatorConfig, {"es": "persistent", "reach": 3}),
    (EstimatorConfig, {"probe_rate": 1e-3, "allocate": True, "rp_cost": 100.0}),
    (CurriculumConfig, {"start": 1, "end": 1, "updates": 0, "jitter": 0.0}),
    (OuterConfig, {"clip": "none", "clip_value": 0.0}),
    (OuterConfig, {"max_staleness": 0}),
    (OuterConfig, {"keep_checkpoints": 2}),
    (EvaluationConfig, {"tasks": 0, "baselines": ()}),
    (MetricsConfig, {"port": 65535}),
    (TaskConfig, {"family": "my_package.tasks:family", "units": (), "strides": (2,), "options": {"x": 1}}),
    (TaskConfig, {"family": "quadratic", "options": {"dimension": 1}}),
    (TaskConfig, {"inner_steps": (5, 5)}),
    (TaskConfig, {"normalizer": 1e-6}),
]


@pytest.mark.parametrize("section, values, sentence", IMPOSSIBLE)
def test_section_impossible_value_is_rejected_by_name(section, values, sentence):
    with pytest.raises(UserError) as refusal:
        section(**values)
    assert sentence in str(refusal.value)
    assert any(key in str(refusal.value) for key in values)


@pytest.mark.parametrize("section, values", EDGES)
def test_section_value_at_its_bound_is_accepted(section, values):
    made = section(**values)
    assert {key: getattr(made, key) for key in values} == values


@pytest.mark.parametrize("curriculum", [CurriculumConfig(start=5, end=11), CurriculumConfig(start=11, end=5)])
def test_config_window_longer_than_problem_is_rejected(curriculum):
    with pytest.raises(UserError, match=r"11 steps, longer than the inner problem \(task.inner_steps = 10\)"):
        Config(task=TaskConfig(inner_steps=10), curriculum=curriculum)
    Config(task=TaskConfig(inner_steps=11), curriculum=curriculum)


def test_config_holding_windows_without_allocation_is_rejected():
    with pytest.raises(
        UserError, match=r"curriculum.hold needs to know what rp is worth: set estimator.allocate = true"
    ):
        Config(curriculum=CurriculumConfig(hold=True))
    Config(curriculum=CurriculumConfig(hold=True), estimator=EstimatorConfig(allocate=True, probe_rate=0.1))


@pytest.mark.parametrize("windows", [{"start": 50, "end": 20}, {"start": 20, "end": 20}, {"updates": 0}])
def test_config_that_holds_windows_which_do_not_grow_is_rejected(windows):
    with pytest.raises(
        UserError, match=r"curriculum.hold shortens windows that have grown: set curriculum.start below"
    ):
        Config(
            curriculum=CurriculumConfig(hold=True, **windows), estimator=EstimatorConfig(allocate=True, probe_rate=0.1)
        )


def test_config_with_more_pairs_than_a_message_holds_is_rejected():
    with pytest.raises(UserError, match=r"4096 pairs at most, and would have 4097: lower .* estimator.pairs"):
        Config(estimator=EstimatorConfig(pairs=4097))
    Config(estimator=EstimatorConfig(pairs=4096))


@pytest.mark.parametrize("name", ["momentum_features", "time_features"])
def test_optimizer_that_has_its_inputs_always_is_not_ablated(name):
    with pytest.raises(UserError, match="are for mlp: mlp_muon has its inputs always"):
        OptimizerConfig(family="mlp_muon", **{name: False})


CHANGED = {
    "mixture": (MixtureConfig(name="alone"),),
    "task": TaskConfig(classes=4),
    "dataset": DatasetConfig(seed=1),
    "optimizer": OptimizerConfig(time_features=False),
    "estimator": EstimatorConfig(sigma=0.01),
    "curriculum": CurriculumConfig(jitter=0.1),
    "outer": OuterConfig(learning_rate=1e-5),
    "workers": WorkersConfig(count=3),
    "evaluation": EvaluationConfig(tasks=3),
    "metrics": MetricsConfig(port=9000),
    "tracking": TrackingConfig(project="mine"),
    "seed": 1,
}


@pytest.mark.parametrize("name", [f.name for f in fields(Config)])
def test_digest_changes_with_digested_sections_only(name):
    start = replace(Config(), estimator=EstimatorConfig(pairs=2)) if name == "mixture" else Config()
    changed = replace(start, **{name: CHANGED[name]})
    assert (digest(changed, "f") != digest(start, "f")) == (name in DIGESTED)


@pytest.mark.parametrize("key", ["path", "text"])
def test_digest_covers_dataset_content_and_not_its_place(key):
    here, there = (replace(Config(), dataset=DatasetConfig(**{key: place})) for place in ("/a", "/b"))
    assert digest(here, "f") == digest(there, "f")
    assert digest(here, "f") != digest(here, "g")
    assert set(digest(here, "f")) <= set("0123456789abcdef") and len(digest(here, "f")) == 64


def test_digest_covers_every_digested_key_but_the_places():
    base = Config(estimator=EstimatorConfig(allocate=True, probe_rate=0.5))  # what curriculum.hold needs
    for name in (name for name in DIGESTED if name != "mixture"):
        section = getattr(base, name)
        for key in (entry.field for entry in entries(type(section)) if entry.field not in ("path", "text")):
            other = _other(section, key)
            assert digest(replace(base, **{name: other}), "f") != digest(base, "f"), f"{name}.{key}"


def _other(section, key):
    """The section with another value of one key, set without its checks."""
    copy, value = replace(section), getattr(section, key)
    if isinstance(value, bool):
        changed = not value
    elif isinstance(value, int | float):
        changed = value + 1
    else:
        changed = {str: "other", tuple: (1, 2), dict: {"x": 1}}[type(value)]
    object.__setattr__(copy, key, changed)
    return copy


@pytest.mark.parametrize(
    "config, expected",
    [
        (Config(), "ae4dbfba5c605d91b3c8d1fc20989b2103fd5b0eb238b37d36b1b93b5a8b27a9"),
        (configfile.load("quickstart-mlp"), "381809de127808a00aeb88c3e3c944b383cefc315416c779e93ccdf2b263e8e1"),
        (configfile.load("paper"), "9bb0997e2d3e0f171218b8607f67550ad05bbe5c7ded258a0d90fde168ae5787"),
    ],
    ids=["default", "quickstart-mlp", "paper"],
)
def test_digest_is_that_of_the_format(config, expected):
    """Another value would make every existing run impossible to resume."""
    assert digest(config, "fingerprint") == expected


@dataclass(frozen=True)
class LaterTaskConfig(TaskConfig):
    """The section of a later release, with two more keys."""

    later: int = 3
    table: Mapping[str, Any] = field(default_factory=dict)


def test_digest_omits_later_keys_that_have_their_defaults():
    later = replace(Config(), task=LaterTaskConfig())
    assert digest(later, "f") == digest(Config(), "f")
    changed = [replace(Config(), task=LaterTaskConfig(**values)) for values in ({"later": 4}, {"table": {"x": 1}})]
    assert len({digest(config, "f") for config in (later, *changed)}) == 3


@dataclass(frozen=True)
class LaterSection(Section):
    NAME = "later"

    size: int = 1


@dataclass(frozen=True)
class LaterConfig(Config):
    """The configuration of a later release, with another section and another key outside of the sections."""

    later: LaterSection = field(default_factory=LaterSection)
    mode: str = "new"


def of_the_format():
    """The defaults of the keys that existed when the format was defined."""
    tree = asdict(Config())
    later = {
        "estimator": ("allocate", "outer_loss", "reach", "rp_cost", "rp_nonfinite", "rp_variance"),
        "curriculum": ("hold",),
        "evaluation": ("weight_decays", "rejection"),
        "optimizer": ("layers", "orthogonalize", "progress"),
        "task": ("normalizer", "width", "depth", "heads", "context", "augment", "augment_range"),
        "dataset": ("text",),
        "outer": ("inner_steps",),
    }
    for section, key in ((section, key) for section, keys in later.items() for key in keys):
        del tree[section][key]
    del tree["tracking"], tree["mixture"]
    return tree


def test_stable_tree_of_the_format_is_complete():
    assert stable_tree(Config()) == of_the_format()


@pytest.mark.parametrize(
    "values, expected",
    [({}, {}), ({"later": LaterSection(2)}, {"later": {"size": 2}}), ({"mode": "old"}, {"mode": "old"})],
)
def test_stable_tree_holds_later_values_that_are_changed(values, expected):
    assert stable_tree(LaterConfig(**values)) == of_the_format() | expected


def test_every_key_says_what_it_is():
    sections = (getattr(Config(), f.name) for f in fields(Config) if f.name not in ("seed", "mixture"))
    for section in (Config(), MixtureConfig(), *sections):
        for entry in entries(type(section)):
            value = getattr(section, entry.field)
            assert is_dataclass(value) or entry.key.what.endswith(".")
            assert not entry.key.cost or entry.key.cost.endswith(".")


def test_config_attributes_cannot_be_assigned():
    sections = [f.name for f in fields(Config) if f.name not in ("seed", "mixture")]
    assert all(is_dataclass(getattr(Config(), name)) for name in sections)
    with pytest.raises(AttributeError):
        Config().seed = 2
    with pytest.raises(AttributeError):
        Config().task.classes = 1
