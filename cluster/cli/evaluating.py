"""`outertrain evaluate` and `outertrain baselines`: learning curves of frozen optimizers on unseen tasks."""

import argparse

from cluster.cli import options


def add(commands: argparse._SubParsersAction) -> None:
    _add_evaluate(commands)
    _add_baselines(commands)
    _add_search(commands)


def _add_evaluate(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("evaluate", help="a learned optimizer against tuned baselines on unseen tasks")
    parser.add_argument("target", metavar="RUN|THETA", help="a run, a theta file, or the name of a shipped one")
    parser.add_argument("--config", metavar="CONFIG", help="the tasks of a theta file: a TOML file or a preset")
    _common(parser)
    parser.set_defaults(handler=evaluate)


def _add_baselines(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("baselines", help="tune hand-designed optimizers on the tasks of an evaluation")
    parser.add_argument("target", metavar="RUN|CONFIG", help="a run, a TOML file or a preset")
    _common(parser)
    parser.set_defaults(handler=baselines)


def _add_search(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("search", help="random search over Adam's eight hyper-parameters (section 4.4)")
    parser.add_argument("target", metavar="RUN|CONFIG", help="a run, a TOML file or a preset")
    parser.add_argument("--draws", type=int, default=200, metavar="N", help="default 200; the paper's 2000")
    parser.add_argument("--runs", type=int, default=16, metavar="N", help="inner runs of a draw (16; the paper's 80)")
    parser.add_argument(
        "--keep-all", action="store_true", help="all runs for every draw; otherwise hopeless ones are rejected early"
    )
    _places(parser)
    parser.set_defaults(handler=search)


def _common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--tasks", type=int, metavar="N", help="unseen tasks (evaluation.tasks)")
    parser.add_argument("--baselines", nargs="+", metavar="NAME", help="adam, rmsprop, sgd (evaluation.baselines)")
    _places(parser)


def _places(parser: argparse.ArgumentParser) -> None:
    options.workers(parser)
    options.overrides(parser)
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--in-process", action="store_true", help="one process, no Ray")
    where.add_argument(
        "--cluster", action="store_true", help="by the workers of the run, which is launched, behind its training"
    )
    options.as_json(parser)


def evaluate(arguments: argparse.Namespace) -> int:
    from cluster.cli.evaluate import assess

    return assess(_request(arguments, arguments.config), with_learned=True)


def baselines(arguments: argparse.Namespace) -> int:
    from cluster.cli.evaluate import assess

    return assess(_request(arguments, None), with_learned=False)


def search(arguments: argparse.Namespace) -> int:
    from cluster.cli import evaluate as assess
    from cluster.jobs.search import Size
    from common.errors import UserError

    for name in ("draws", "runs"):
        if getattr(arguments, name) < 1:
            raise UserError(f"--{name} {getattr(arguments, name)} leaves nothing to search: give at least 1")
    size = Size(arguments.draws, arguments.runs, arguments.keep_all)
    return assess.search(_request(arguments, None), size)


def _request(arguments: argparse.Namespace, config: str | None):
    from cluster.cli.evaluate import Request

    overrides = list(arguments.overrides)
    if getattr(arguments, "tasks", None) is not None:
        overrides.append(f"evaluation.tasks={arguments.tasks}")
    if getattr(arguments, "baselines", None) is not None:
        overrides.append(f"evaluation.baselines={arguments.baselines}")
    if arguments.workers is not None:
        overrides.append(f"workers.count={arguments.workers}")
    return Request(arguments.target, config, tuple(overrides), arguments.in_process, arguments.json, arguments.cluster)
