"""The digest of a run: what decides the meaning of a sample, as one hash."""

import hashlib
import json
from collections.abc import Collection
from copy import deepcopy
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any

from common.config.run import Config

# The keys at the time when the format was defined. Never add to it: a later key is left out while it has its default
# value, so that the digests of existing runs, and the names of existing results, stay as they are.
FORMAT = {
    "task": "family units strides classes batch_size inner_steps options",
    "dataset": "source path seed image_size classes train_images valid_images test_images valid_fraction",
    "optimizer": "family hidden momentum_features time_features learning_rate momentum",
    "estimator": "use es objective sigma pairs outer_batches clamp merge cross_fit probe_rate",
    "curriculum": "start end updates jitter stagger",
    "outer": "updates batch_samples optimizer learning_rate schedule options clip clip_value max_staleness "
    "keep_checkpoints keep_every journal",
    "workers": "count segment grace aggregate",
    "evaluation": "tasks every initialisations baselines rate_low rate_high rate_count seed",
    "metrics": "port address",
}
ROOT = ("seed",)
DIGESTED = ("task", "dataset", "optimizer", "estimator", "curriculum")


def digest(config: Config, dataset_fingerprint: str) -> str:
    """Sha256 (hex) of the digested sections, the mixture and the content of the datasets. A worker with another digest is rejected.

    `dataset.path` and `dataset.text` are left out: nodes may mount a class store or a text elsewhere.
    """
    text = json.dumps([deciding(config), dataset_fingerprint], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def deciding(config: Config) -> dict[str, Any]:
    """The sections that decide the meaning of a sample, as nested dictionaries, without the places of data."""
    tree = stable_tree(config)
    sections = {name: tree[name] for name in (*DIGESTED, "mixture") if name in tree}
    for dataset in (sections["dataset"], *(member.get("dataset", {}) for member in sections.get("mixture", ()))):
        for place in ("path", "text"):
            dataset.pop(place, None)
    return sections


def stable_tree(config: Config) -> dict[str, Any]:
    """The configuration as nested dictionaries, without later keys and sections that have their default values.

    Whatever hashes a configuration must hash this.
    """
    return _stable(config, ROOT)


def _stable(section: Any, known: Collection[str]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for field in fields(section):
        part = getattr(section, field.name)
        if is_dataclass(part):
            keys = _stable(part, FORMAT.get(field.name, "").split())
            if keys or field.name in FORMAT:
                tree[field.name] = keys
        elif isinstance(part, tuple) and any(map(is_dataclass, part)):
            tree[field.name] = [_stable(one, ()) for one in part]
        elif field.name in known or part != _default(field):
            tree[field.name] = deepcopy(part)
    return tree


def _default(field: Field) -> Any:
    return field.default if field.default_factory is MISSING else field.default_factory()
