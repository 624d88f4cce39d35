"""`outertrain train`: a whole run on this machine, from nothing to a report."""

import argparse

from cluster.cli import options


def add(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("train", help="train, evaluate and report on this machine")
    options.config_source(parser)
    parser.add_argument("--name", metavar="RUN", help="the run's name (default: that of CONFIG)")
    options.workers(parser)
    parser.add_argument("--updates", type=int, metavar="N", help="outer updates of the whole run (outer.updates)")
    parser.add_argument("--resume", action="store_true", help="go on with the run of this name")
    parser.add_argument("--in-process", action="store_true", help="one process, no Ray, deterministic")
    parser.add_argument("--no-evaluate", action="store_true", help="train only")
    options.as_json(parser)
    parser.set_defaults(handler=handle)


def handle(arguments: argparse.Namespace) -> int:
    from cluster.cli.train import Request, train

    return train(
        Request(
            source=arguments.config,
            name=arguments.name,
            overrides=overrides_of(arguments),
            resume=arguments.resume,
            in_process=arguments.in_process,
            evaluate=not arguments.no_evaluate,
            json=arguments.json,
        )
    )


def overrides_of(arguments: argparse.Namespace) -> tuple[str, ...]:
    """`--set` and its short forms."""
    short = {"workers.count": arguments.workers, "outer.updates": arguments.updates}
    return (*arguments.overrides, *(f"{key}={value}" for key, value in short.items() if value is not None))
