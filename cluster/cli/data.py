"""`outertrain data prepare`: converts data sets as people have them into class stores."""

import shlex
import sys
from pathlib import Path

import click

from cluster.cli import console
from common.data.prepare import prepare
from common.data.sources import open_source
from common.errors import UserError, printable


@click.group("data")
def command() -> None:
    """Prepare image data sets."""


@command.command("prepare")
@click.argument("source", metavar="SOURCE")
@click.argument("store", metavar="STORE", type=click.Path(path_type=Path))
@click.option("--size", type=int, metavar="PIXELS", help="Side of the images, where the source offers several.")
@click.option("--label", metavar="COLUMN", help="Column of the labels, where Parquet files have several.")
@click.option(
    "--data-dir", type=click.Path(path_type=Path), metavar="DIR", help="Data directory of tensorflow-datasets."
)
def prepare_command(source: str, store: Path, size: int | None, label: str | None, data_dir: Path | None) -> None:
    """Make a class store; the same command resumes after an interruption.

    SOURCE is a folder with one folder of images for each class (inside train/ and test/ where there are such), a folder
    with the official Imagenet<size>_*_npz.zip archives or their unpacked npz files, a .npz file with images and labels,
    a .parquet file or a folder of such files with encoded images and labels, as hubs serve them, or tfds:NAME such as tfds:imagenet_resized/32x32. STORE is the folder to write; set dataset.path to it.
    """
    if size is not None and size < 1:
        raise UserError(f"--size {size} is no image: give its side in pixels")
    with console.make() as show:
        opened = open_source(source, data_dir, size, label)
        header = prepare(opened, store, show.counting)
    if opened.rejected:
        print(f"{len(opened.rejected)} images or classes were left out, the first of them:", file=sys.stderr)
        for name, reason in sorted(opened.rejected.items())[:10]:
            print(printable(f"  {name}: {reason}"), file=sys.stderr)
    print(printable(f"{store}: {header.classes} classes of {header.image_shape} images"), file=sys.stderr)
    given = shlex.join(["--set", "dataset.source=store", "--set", f"dataset.path={store}"])
    print(f"use it with: {given}", file=sys.stderr)
