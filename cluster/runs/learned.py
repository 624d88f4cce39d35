"""Learned optimizers by the names that commands take, and the theta that a run begins with."""

import numpy as np

from cluster.runs import best, directory
from cluster.runs.directory import RunDirectory, load_theta
from common import pretrained
from common.config import Config, OptimizerConfig
from common.errors import UserError
from common.pretrained import Pretrained


def find(target: str, version: int | str | None = None) -> Pretrained:
    """Returns theta of a run at an outer update (default: the newest), of a theta file, or of an included optimizer.

    Args:
      version: an outer update; "best": the best of the evaluated ones.

    Raises:
      UserError: `target` is none of these, or the run has no such version.
    """
    path = pretrained.find(target)
    if path is None or target in directory.names():
        run = directory.find(target)
        if isinstance(version, str) and version != best.BEST:
            raise UserError(f"version = {version!r}: give the outer update as an integer, or {best.BEST!r}")
        chosen = best.version_of(run) if isinstance(version, str) else version
        theta, found = load_theta(run, chosen)
        origin = f"from run {run.name}, outer update {found}"
        if run.start_file.is_file():
            origin += f"; the run began {pretrained.load(run.start_file).origin}"
        return Pretrained(theta, run.config().optimizer, origin)
    if version is not None:
        raise UserError(f"--version selects a checkpoint of a run, and {target} is not a run: omit it")
    return pretrained.load(path)


def check_start(learned: Pretrained, target: str, config: OptimizerConfig) -> None:
    """Raises UserError where a run with this [optimizer] cannot begin at theta."""
    theirs = learned.optimizer
    if theirs.family != config.family:
        raise UserError(
            f"--from {target} is a theta of the family {theirs.family}, and the run trains {config.family}: "
            f"add {_settings(theirs)}, or begin at another theta"
        )
    from common.optimizer import make_family  # loads JAX

    if make_family(theirs).layout != make_family(config).layout:
        size = make_family(config).size
        raise UserError(
            f"--from {target} has {len(learned.theta)} numbers of another shape than the {size} of the run's optimizer: "
            f"add {_settings(theirs)}, or begin at another theta"
        )


def describe_start(learned: Pretrained, target: str, config: OptimizerConfig) -> str:
    """Where a run with this [optimizer] begins, with what its training has to adapt to."""
    text = f"at theta of {target} ({learned.origin})"
    if learned.optimizer.progress == config.progress:
        return text
    before, now = ("progress", "steps") if learned.optimizer.progress else ("steps", "progress")
    return f"{text}, whose time inputs saw {before} and now see {now}"


def _settings(optimizer: OptimizerConfig) -> str:
    """The options that give a run this [optimizer]."""
    default = OptimizerConfig()
    keys = ("family", "hidden", "momentum_features", "time_features", "layers", "progress")
    changed = {key: getattr(optimizer, key) for key in keys if getattr(optimizer, key) != getattr(default, key)}
    changed |= {"family": optimizer.family} if not changed else {}
    texts = (str(list(value) if isinstance(value, tuple) else value).replace(" ", "") for value in changed.values())
    return " ".join(
        f"--set optimizer.{key}={text.lower() if text in ('True', 'False') else text}"
        for key, text in zip(changed, texts)
    )


def first_theta(run: RunDirectory, config: Config) -> np.ndarray:
    """Theta [P] float32 that a run begins with: that of `--from`, or a random one by its seed."""
    if run.start_file.is_file():
        return pretrained.load(run.start_file).theta
    from common.optimizer import initial_theta  # loads JAX

    return initial_theta(config)
