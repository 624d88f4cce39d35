"""Runs on a Ray cluster (`launch`, `scale`, `stop`, `logs`, `list`), and looking at any run (`status`, `watch`)."""

import argparse
import json
import sys
from pathlib import Path

from cluster.cli import options


def add(commands: argparse._SubParsersAction) -> None:
    _add_launch(commands)
    parser = commands.add_parser("scale", help="change the number of workers of a launched run")
    options.run_name(parser)
    parser.add_argument("workers", type=int, metavar="N")
    parser.set_defaults(handler=scale)

    parser = commands.add_parser("status", help="where a run stands")
    options.run_name(parser)
    parser.add_argument("--json", action="store_true", help="one line of JSON on standard output")
    parser.set_defaults(handler=status)

    parser = commands.add_parser("watch", help="a run's charts, workers and alarms, live")
    options.run_name(parser)
    parser.add_argument("--once", action="store_true", help="print one picture and end")
    parser.set_defaults(handler=watch)

    parser = commands.add_parser("stop", help="end a launched run with a checkpoint; launch --resume goes on")
    options.run_name(parser)
    parser.add_argument("--now", action="store_true", help="do not wait for the samples at hand")
    parser.set_defaults(handler=stop)

    parser = commands.add_parser("logs", help="what a run has logged: refusals, failures of workers, restarts")
    options.run_name(parser)
    parser.add_argument("--lines", type=int, default=50, metavar="N", help="of the log's end (default: 50)")
    parser.set_defaults(handler=logs)

    parser = commands.add_parser("list", help="the runs in this directory and on this cluster")
    parser.add_argument("--json", action="store_true", help="one line of JSON on standard output")
    parser.set_defaults(handler=list_runs)


def _add_launch(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("launch", help="start a run on the Ray cluster of this machine, and return")
    options.config_source(parser)
    parser.add_argument("--name", required=True, metavar="RUN")
    options.workers(parser)
    parser.add_argument("--updates", type=int, metavar="N", help="outer updates of the whole run (outer.updates)")
    parser.add_argument("--resume", action="store_true", help="go on with the run of this name, if there is one")
    parser.add_argument(
        "--pack",
        action="store_true",
        help="fill node by node, so that an autoscaler can give nodes back (default: spread over all)",
    )
    parser.set_defaults(handler=launch)


def launch(arguments: argparse.Namespace) -> None:
    from cluster.cli.training import overrides_of
    from cluster.launchers import ray_cluster
    from cluster.runs import directory
    from cluster.runs.directory import exclusive
    from cluster.runs.open import Request, open_run
    from common.errors import UserError

    resume = arguments.resume and arguments.name in directory.names()
    overrides = overrides_of(arguments)
    run, undo, note = open_run(Request(arguments.config, arguments.name, overrides, resume))
    if note:
        say(note)
    config = run.config()
    asked_now = any(override.partition("=")[0].strip() == "workers.count" for override in overrides)
    scaled = run.worker_target() if resume and not asked_now else None
    workers = config.workers.count if scaled is None else scaled
    try:
        with exclusive(run), ray_cluster.connected(run.name, config):
            ray_cluster.launch(run, workers, not arguments.pack)
    except UserError:
        undo()
        raise
    say(f"{run.name} runs with {workers} workers; outertrain watch | scale | stop {run.name}")


def scale(arguments: argparse.Namespace) -> None:
    from cluster.launchers import ray_cluster

    with ray_cluster.connected():
        ray_cluster.scale(Path(arguments.run).name, arguments.workers)
    say(f"{arguments.run}: {arguments.workers} workers asked for; outertrain status {arguments.run}")


def status(arguments: argparse.Namespace) -> None:
    from cluster.monitoring.status import state_of, text
    from cluster.runs import directory

    state = state_of(directory.find(arguments.run))
    print(json.dumps(state) if arguments.json else text(state))


def watch(arguments: argparse.Namespace) -> None:
    from cluster.monitoring.dashboard import watch as show
    from cluster.runs import directory

    show(directory.find(arguments.run).path, arguments.once)


def stop(arguments: argparse.Namespace) -> None:
    from cluster.cli import console
    from cluster.launchers import ray_cluster

    with ray_cluster.connected(), console.make() as show:
        ray_cluster.stop(Path(arguments.run).name, arguments.now, show.say)
    say(f"{arguments.run} is stopped with a checkpoint; go on with: outertrain launch --name {arguments.run} --resume")


def logs(arguments: argparse.Namespace) -> None:
    from cluster.runs import directory
    from common.errors import UserError

    if arguments.lines < 1:
        raise UserError(f"--lines {arguments.lines} shows nothing: give at least 1")
    print(directory.find(arguments.run).log(arguments.lines), end="")


def list_runs(arguments: argparse.Namespace) -> None:
    from cluster.monitoring.status import state_of
    from cluster.runs import directory

    states = [state_of(directory.find(name)) for name in directory.names()]
    if arguments.json:
        print(json.dumps(states))
    for s in () if arguments.json else states:
        print(f"{s['run']:30}  {s['state']:9}  update {s['version']}/{s['target']}  workers {s['workers']}")


def say(text: str) -> None:
    print(text, file=sys.stderr)
