"""Impossible values are refused with a sentence; the digest covers what decides the meaning of a sample, no more."""

from dataclasses import fields, is_dataclass, replace
from typing import get_type_hints

import pytest

from common.config import (
    Config,
    CurriculumConfig,
    DatasetConfig,
    EstimatorConfig,
    EvaluationConfig,
    MetricsConfig,
    OptimizerConfig,
    OuterConfig,
    TaskConfig,
    WorkersConfig,
    digest,
)
from common.errors import UserError

DIGESTED = ("task", "dataset", "optimizer", "estimator", "curriculum")
IMPOSSIBLE = [
    (TaskConfig, {"family": "convolution"}, "conv, mlp, quadratic"),
    (TaskConfig, {"family": "a:b:c"}, "module:function"),
    (TaskConfig, {"family": ":function"}, "module:function"),
    (TaskConfig, {"family": "my module:function"}, "module:function"),
    (TaskConfig, {"units": (4, 4), "strides": (1,)}, "one stride per convolution"),
    (TaskConfig, {"units": (4, 0), "strides": (1, 1)}, "task.units"),
    (TaskConfig, {"units": (4, 4), "strides": (1, 0)}, "task.strides"),
    (TaskConfig, {"options": {"dimension": 3}}, "task.options has dimension"),
    (TaskConfig, {"options": {"dimensions": 3}, "family": "quadratic"}, "task.options has dimensions"),
    (TaskConfig, {"classes": 1}, "at least 2"),
    (TaskConfig, {"batch_size": 0}, "task.batch_size = 0"),
    (TaskConfig, {"inner_steps": 0}, "task.inner_steps = 0"),
    (DatasetConfig, {"source": "imagenet"}, "procedural, store"),
    (DatasetConfig, {"source": "store"}, "data prepare"),
    (DatasetConfig, {"image_size": 7}, "8 .. 64"),
    (DatasetConfig, {"image_size": 65}, "8 .. 64"),
    (DatasetConfig, {"classes": 1}, "dataset.classes = 1"),
    (DatasetConfig, {"valid_images": 0}, "at least 1"),
    (DatasetConfig, {"valid_fraction": 0.0}, "between 0 and 1"),
    (DatasetConfig, {"valid_fraction": 1.0}, "between 0 and 1"),
    (DatasetConfig, {"seed": -1}, "dataset.seed = -1"),
    (OptimizerConfig, {"family": "lion"}, "mlp, adam, rmsprop, sgd, adam8"),
    (OptimizerConfig, {"hidden": 0}, "optimizer.hidden = 0"),
    (OptimizerConfig, {"learning_rate": 0.0}, "must be positive"),
    (EstimatorConfig, {"use": "both"}, "merged, rp, es"),
    (EstimatorConfig, {"es": "pes"}, "truncated, persistent, noise_reuse"),
    (EstimatorConfig, {"objective": "test"}, "train, valid"),
    (EstimatorConfig, {"objective": "valid"}, "estimator.outer_batches of at least 1"),
    (EstimatorConfig, {"merge": "layer"}, "coordinate, tensor, scalar"),
    (EstimatorConfig, {"es": "persistent"}, "estimator.use = 'es'"),
    (EstimatorConfig, {"es": "noise_reuse", "use": "rp"}, "estimator.use = 'es'"),
    (EstimatorConfig, {"sigma": -0.1}, "cannot be negative"),
    (EstimatorConfig, {"sigma": 0.0}, "leaves es undefined"),
    (EstimatorConfig, {"sigma": 0.0, "use": "es"}, "leaves es undefined"),
    (EstimatorConfig, {"pairs": 0}, "estimator.pairs = 0"),
    (EstimatorConfig, {"probe_rate": 0.0}, "0 excluded"),
    (EstimatorConfig, {"probe_rate": 1.5}, "0 excluded"),
    (EstimatorConfig, {"clamp": 0.0}, "must be positive"),
    (EstimatorConfig, {"outer_batches": -1}, "0 or more"),
    (CurriculumConfig, {"start": 0}, "at least 1"),
    (CurriculumConfig, {"end": 0}, "at least 1"),
    (CurriculumConfig, {"updates": -1}, "0 or more"),
    (CurriculumConfig, {"jitter": 1.0}, "1 excluded"),
    (CurriculumConfig, {"jitter": -0.1}, "1 excluded"),
    (OuterConfig, {"schedule": "linear"}, "constant, cosine"),
    (OuterConfig, {"clip": "norm"}, "none, global_norm, elementwise"),
    (OuterConfig, {"updates": 0}, "outer.updates = 0"),
    (OuterConfig, {"batch_samples": 0}, "outer.batch_samples = 0"),
    (OuterConfig, {"learning_rate": -1.0}, "must be positive"),
    (OuterConfig, {"clip_value": 0.0}, "must be positive"),
    (OuterConfig, {"max_staleness": -2}, "no limit"),
    (OuterConfig, {"keep_checkpoints": 1}, "at least 2"),
    (OuterConfig, {"keep_every": -1}, "outer.keep_every = -1"),
    (WorkersConfig, {"count": 0}, "at least 1"),
    (WorkersConfig, {"segment": 0}, "workers.segment = 0"),
    (EvaluationConfig, {"tasks": -1}, "0 or more"),
    (EvaluationConfig, {"every": -1}, "0 or more"),
    (EvaluationConfig, {"initialisations": 0}, "at least 1"),
    (EvaluationConfig, {"baselines": ("adam", "lion")}, "adam, rmsprop, sgd"),
    (EvaluationConfig, {"rate_low": 0.0}, "must be positive"),
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
    (EstimatorConfig, {"probe_rate": 1e-3}),
    (CurriculumConfig, {"start": 1, "end": 1, "updates": 0, "jitter": 0.0}),
    (OuterConfig, {"clip": "none", "clip_value": 0.0}),
    (OuterConfig, {"max_staleness": 0}),
    (OuterConfig, {"keep_checkpoints": 2}),
    (EvaluationConfig, {"tasks": 0, "baselines": ()}),
    (MetricsConfig, {"port": 65535}),
    (TaskConfig, {"family": "my_package.tasks:family", "units": (), "strides": (2,), "options": {"x": 1}}),
    (TaskConfig, {"family": "quadratic", "options": {"dimension": 1}}),
]


@pytest.mark.parametrize("section, values, sentence", IMPOSSIBLE)
def test_impossible_values_are_refused_with_a_sentence_that_names_the_key(section, values, sentence):
    with pytest.raises(UserError) as refusal:
        section(**values)
    assert sentence in str(refusal.value)
    assert any(key in str(refusal.value) for key in values)


@pytest.mark.parametrize("section, values", EDGES)
def test_values_at_the_edge_of_what_is_possible_are_taken(section, values):
    made = section(**values)
    assert {key: getattr(made, key) for key in values} == values


@pytest.mark.parametrize("curriculum", [CurriculumConfig(start=5, end=11), CurriculumConfig(start=11, end=5)])
def test_a_window_longer_than_the_problem_is_refused(curriculum):
    with pytest.raises(UserError, match=r"11 steps, longer than the inner problem \(task.inner_steps = 10\)"):
        Config(task=TaskConfig(inner_steps=10), curriculum=curriculum)
    Config(task=TaskConfig(inner_steps=11), curriculum=curriculum)


CHANGED = {
    "task": TaskConfig(classes=4),
    "dataset": DatasetConfig(seed=1),
    "optimizer": OptimizerConfig(time_features=False),
    "estimator": EstimatorConfig(sigma=0.01),
    "curriculum": CurriculumConfig(jitter=0.1),
    "outer": OuterConfig(learning_rate=1e-5),
    "workers": WorkersConfig(count=3),
    "evaluation": EvaluationConfig(tasks=3),
    "metrics": MetricsConfig(port=9000),
    "seed": 1,
}


@pytest.mark.parametrize("name", [f.name for f in fields(Config)])
def test_the_digest_changes_with_each_digested_section_and_with_no_other(name):
    changed = replace(Config(), **{name: CHANGED[name]})
    assert (digest(changed, "f") != digest(Config(), "f")) == (name in DIGESTED)


def test_the_digest_covers_the_content_of_the_dataset_and_not_where_it_lies():
    here, there = (replace(Config(), dataset=DatasetConfig(source="store", path=p)) for p in ("/a", "/b"))
    assert digest(here, "f") == digest(there, "f")
    assert digest(here, "f") != digest(here, "g")
    assert set(digest(here, "f")) <= set("0123456789abcdef") and len(digest(here, "f")) == 64


def test_every_field_of_every_digested_section_is_covered_but_the_path():
    for name in DIGESTED:
        section = getattr(Config(), name)
        for key, kind in get_type_hints(type(section)).items():
            if key == "path":
                continue
            other = _other(section, key, kind)
            assert digest(replace(Config(), **{name: other}), "f") != digest(Config(), "f"), f"{name}.{key}"


def _other(section, key, kind):
    """The section with another value of one key, put there past its checks."""
    copy = replace(section)
    value = getattr(section, key)
    changed = {bool: not value, str: "other", tuple[int, ...]: (1, 2)}.get(kind)
    if kind in (int, float):
        changed = value + 1
    object.__setattr__(copy, key, {"x": 1} if changed is None else changed)
    return copy


def test_a_configuration_cannot_be_changed_after_its_check():
    assert all(is_dataclass(getattr(Config(), f.name)) for f in fields(Config) if f.name != "seed")
    with pytest.raises(AttributeError):
        Config().seed = 2
    with pytest.raises(AttributeError):
        Config().task.classes = 1
