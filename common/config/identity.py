"""The digest of a run: what decides the meaning of a sample, as one hash."""

import hashlib
import json
from dataclasses import MISSING, Field, asdict, fields
from typing import Any

from common.config.run import Config

# The digested keys at the time when the format was defined. Never add to it: a later key with its default value is left
# out of the digest, so that the digest of existing runs stays as it is.
FORMAT = {
    "task": ("family", "units", "strides", "classes", "batch_size", "inner_steps", "options"),
    "dataset": (
        "source",
        "seed",
        "image_size",
        "classes",
        "train_images",
        "valid_images",
        "test_images",
        "valid_fraction",
    ),
    "optimizer": ("family", "hidden", "momentum_features", "time_features", "learning_rate", "momentum"),
    "estimator": (
        "use",
        "es",
        "objective",
        "sigma",
        "pairs",
        "outer_batches",
        "clamp",
        "merge",
        "cross_fit",
        "probe_rate",
    ),
    "curriculum": ("start", "end", "updates", "jitter", "stagger"),
}
DIGESTED = tuple(FORMAT)
LEFT_OUT = {"dataset": ("path",)}  # nodes may mount a class store elsewhere; its content is in the fingerprint


def digest(config: Config, dataset_fingerprint: str) -> str:
    """Sha256 (hex) of the digested sections and the content of the dataset. A worker with another digest is rejected."""
    sections = {name: _digested(name, getattr(config, name)) for name in DIGESTED}
    text = json.dumps([sections, dataset_fingerprint], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _digested(name: str, section: Any) -> dict[str, Any]:
    values = asdict(section)
    later = [f for f in fields(section) if f.name not in FORMAT[name]]
    unchanged = {f.name for f in later if getattr(section, f.name) == _default(f)}
    return {key: value for key, value in values.items() if key not in unchanged | {*LEFT_OUT.get(name, ())}}


def _default(field: Field) -> Any:
    return field.default if field.default_factory is MISSING else field.default_factory()
