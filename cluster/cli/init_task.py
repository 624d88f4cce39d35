"""`outertrain init-task`: writes a commented starting point for learning an optimizer for a model of the user's own."""

import shlex
import sys
from importlib import resources
from pathlib import Path

import click

from common.errors import UserError, printable

FILES = {  # name in the new folder -> package and name of the text
    "model.py": ("cluster.cli", "starting_point/model.py"),
    "config.toml": ("common.presets", "own-task.toml"),
}


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
def command(folder: Path) -> None:
    """Write a model and a configuration to DIR that train as they are, to be replaced by your own."""
    write(folder)
    print(printable(f"{folder} holds {' and '.join(FILES)}; next: {next_step(folder)}"), file=sys.stderr)


def next_step(folder: Path) -> str:
    enter = "" if folder.resolve() == Path.cwd() else f"cd {shlex.quote(str(folder))} && "
    return f"{enter}outertrain train config.toml"


def write(folder: Path) -> None:
    """Raises UserError where a file exists or the folder cannot be written."""
    taken = [name for name in FILES if (folder / name).exists()]
    if taken:
        raise UserError(f"{folder} holds {' and '.join(taken)} already: name another folder, or move it away")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, (package, source) in FILES.items():
            text = (resources.files(package) / source).read_text(encoding="utf-8")
            (folder / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write to {folder} ({error.strerror}): name another folder") from None
