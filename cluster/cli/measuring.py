"""`outertrain bench`: the figures of the unroll engine and the learner, each a ratio within one run."""

import argparse

from cluster.cli import options


def add(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("bench", help="measure the unroll engine and the learner on this machine")
    parser.add_argument("figures", nargs="*", metavar="NAME", help="which ones (default: all)")
    parser.add_argument("--list", action="store_true", help="only name them")
    options.as_json(parser)
    parser.set_defaults(handler=bench)


def bench(arguments: argparse.Namespace) -> int:
    from cluster.cli.bench import run

    return run(arguments.figures, arguments.list, arguments.json)
