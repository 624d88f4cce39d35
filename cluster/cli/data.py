"""`outertrain data prepare`: a class store from official archives or from tensorflow-datasets."""

import argparse
import sys
from pathlib import Path


def add(commands: argparse._SubParsersAction) -> None:
    family = commands.add_parser("data", help="prepare sets of images")
    actions = family.add_subparsers(title="actions", metavar="ACTION", required=True)
    parser = actions.add_parser("prepare", help="make a class store; the same command goes on where it was cut off")
    parser.add_argument(
        "source",
        metavar="SOURCE",
        help="a folder with the official Imagenet<size>_*_npz.zip archives, or tfds:NAME such as tfds:imagenet_resized/32x32",
    )
    parser.add_argument("store", type=Path, metavar="STORE", help="the folder to make; set dataset.path to it")
    parser.add_argument("--size", type=int, metavar="PIXELS", help="side of the images, where the source has a choice")
    parser.add_argument("--data-dir", type=Path, metavar="DIR", help="where tensorflow-datasets keeps its data")
    parser.set_defaults(handler=prepare)


def prepare(arguments: argparse.Namespace) -> None:
    from cluster.cli import console
    from common.data.prepare import prepare
    from common.errors import UserError

    if arguments.size is not None and arguments.size < 1:
        raise UserError(f"--size {arguments.size} is no image: give its side in pixels")

    with console.make() as show:
        header = prepare(_source(arguments), arguments.store, show.counting)
    print(f"{arguments.store}: {header.classes} classes of {header.image_shape} images", file=sys.stderr)
    print("use it with: --set dataset.source=store --set dataset.path=" + str(arguments.store), file=sys.stderr)


def _source(arguments: argparse.Namespace):
    name, scheme, rest = arguments.source.partition(":")
    if scheme and name == "tfds":
        from common.data.tfds_source import open_tfds

        return open_tfds(rest, arguments.data_dir, arguments.size)
    from common.data.imagenet_archives import open_archives

    return open_archives(Path(arguments.source), arguments.size)
