"""`outertrain evaluate` and `outertrain baselines`: learning curves of frozen optimizers on unseen tasks."""

import argparse

from cluster.commands import options


def add(commands: argparse._SubParsersAction) -> None:
    _add_evaluate(commands)
    _add_baselines(commands)


def _add_evaluate(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("evaluate", help="a learned optimizer against tuned baselines on unseen tasks")
    parser.add_argument("target", metavar="RUN|THETA", help="a run, or an exported theta file")
    parser.add_argument("--config", metavar="CONFIG", help="the tasks of a theta file: a TOML file or a preset")
    _common(parser)
    parser.set_defaults(handler=evaluate)


def _add_baselines(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("baselines", help="tune hand-designed optimizers on the tasks of an evaluation")
    parser.add_argument("target", metavar="RUN|CONFIG", help="a run, a TOML file or a preset")
    _common(parser)
    parser.set_defaults(handler=baselines)


def _common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--tasks", type=int, metavar="N", help="unseen tasks (evaluation.tasks)")
    parser.add_argument("--baselines", nargs="+", metavar="NAME", help="adam, rmsprop, sgd (evaluation.baselines)")
    options.workers(parser)
    options.overrides(parser)
    parser.add_argument("--in-process", action="store_true", help="one process, no Ray")
    options.as_json(parser)


def evaluate(arguments: argparse.Namespace) -> int:
    from cluster.assess import assess

    return assess(_request(arguments, arguments.config), with_learned=True)


def baselines(arguments: argparse.Namespace) -> int:
    from cluster.assess import assess

    return assess(_request(arguments, None), with_learned=False)


def _request(arguments: argparse.Namespace, config: str | None):
    from cluster.assess import Request

    overrides = list(arguments.overrides)
    if arguments.tasks is not None:
        overrides.append(f"evaluation.tasks={arguments.tasks}")
    if arguments.baselines is not None:
        overrides.append(f"evaluation.baselines={arguments.baselines}")
    if arguments.workers is not None:
        overrides.append(f"workers.count={arguments.workers}")
    return Request(arguments.target, config, tuple(overrides), arguments.in_process, arguments.json)
