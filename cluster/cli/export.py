"""`outertrain export`: saves a learned optimizer as a Python module or a theta file."""

import os
import sys
from pathlib import Path

import click

from cluster.report.export import write
from cluster.report.model_card import write_folder
from cluster.runs import directory
from cluster.runs.best import BEST
from cluster.runs.cost import outer_training_cost
from cluster.runs.learned import find
from common.config import Config
from common.config.inner import sizes
from common.errors import UserError, printable
from common.pretrained import Pretrained

LONGEST_VERSION = 18  # digits


@click.command()
@click.argument("target", metavar="RUN|THETA")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    metavar="FILE",
    help="FILE.py: a module that needs only jax and optax, or only torch; FILE.safetensors; any other suffix: a theta file. "
    "With --format safetensors: a folder.",
)
@click.option(
    "--framework",
    type=click.Choice(["optax", "torch"]),
    default="optax",
    show_default=True,
    help="What the module is for.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["safetensors"]),
    help="safetensors: a folder with theta and a model card, as model hubs read it.",
)
@click.option(
    "--version",
    metavar="V",
    callback=lambda context, parameter, value: version_in(value),
    help="Outer update to export (default: the newest); best: the best of those evaluated (evaluation.every).",
)
def command(target: str, output: Path, framework: str, form: str | None, version: int | str | None) -> None:
    """Save a learned optimizer as a Python module, a theta file, or a folder for a model hub.

    RUN|THETA is a run, a theta file, a folder with safetensors, or the name of an included optimizer.
    """
    learned = find(target, version)
    if form is None:
        write(learned, output, framework)
    else:
        write_hub_folder(learned, output, target, framework)
    print(printable(f"{output}: {len(learned.theta)} parameters {learned.origin}"), file=sys.stderr)


def write_hub_folder(learned: Pretrained, folder: Path, target: str, framework: str) -> None:
    """Writes safetensors and a model card. Raises UserError where the folder cannot be written."""
    if framework != "optax" or folder.suffix in (".py", ".safetensors"):
        raise UserError(f"--format safetensors writes a folder, not {folder} for {framework}: name a folder with -o")
    try:
        write_folder(learned, folder, facts_of(target))
    except OSError as error:
        raise UserError(f"cannot write {folder} ({error.strerror}): choose another folder with -o") from None


def facts_of(target: str) -> dict[str, str]:
    """How theta was trained, for the model card; nothing for theta files, which do not say it."""
    if target not in directory.names() and not os.path.isfile(Path(target) / "config.toml"):
        return {}
    run = directory.find(target)
    config = run.config()
    seconds = outer_training_cost(run.path, config)
    return {
        "tasks": "; ".join(tasks_text(member.config) for member in config.members),
        "estimator": f"{config.estimator.use}, objective {config.estimator.objective}, seed {config.seed}",
        **({} if seconds is None else {"cost": f"{seconds:.0f} core seconds of outer-training"}),
    }


def tasks_text(config: Config) -> str:
    """The inner problems of a family in words."""
    task = config.task
    return f"{sizes(task)}, {task.steps_text} steps, batches of {task.batch_size}, dataset {config.dataset.source}"


def version_in(text: str | None) -> int | str | None:
    """The version that a text names: a number, or `BEST`."""
    if text is None or text == BEST:
        return text
    if not (text.isascii() and text.isdigit() and len(text) <= LONGEST_VERSION):
        raise click.BadParameter(f"{text!r} is neither the number of an outer update nor {BEST!r}")
    return int(text)
