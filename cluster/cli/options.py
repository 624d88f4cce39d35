"""Options and arguments that several commands share."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import click

Function = Callable[..., Any]


class ShortForm(NamedTuple):
    """An option that stands for `--set key=value`."""

    key: str
    type: type
    metavar: str
    help: str
    multiple: bool = False


SHORT_FORMS = {
    "workers": ShortForm("workers.count", int, "N", "Worker processes (workers.count)."),
    "updates": ShortForm("outer.updates", int, "N", "Outer updates of the whole run (outer.updates)."),
    "tasks": ShortForm("evaluation.tasks", int, "N", "Unseen tasks (evaluation.tasks)."),
    "baselines": ShortForm(
        "evaluation.baselines", str, "NAME ...", "Names, or paper or strong (evaluation.baselines).", multiple=True
    ),
}

run = click.argument("run", metavar="RUN")
as_json = click.option("--json", "as_json", is_flag=True, help="Print one line of JSON on standard output.")
start = click.option(
    "--from", "start", metavar="RUN|THETA", help="Begin at theta of a run, a theta file or an included optimizer."
)
resume = click.option("--resume", is_flag=True, help="Resume the run of this name.")


def overrides(*short_forms: str) -> Callable[[Function], Function]:
    """Adds `--set` and short forms of it. The command receives all of them, as `overrides`, the short forms last."""

    def decorate(function: Function) -> Function:
        @functools.wraps(function)
        def wrapped(*arguments: Any, overrides: tuple[str, ...], **values: Any) -> Any:
            given = {name: values.pop(name) for name in short_forms}
            return function(*arguments, overrides=(*overrides, *expand(given)), **values)

        decorated: Function = wrapped
        for name in reversed(short_forms):
            form = SHORT_FORMS[name]
            decorated = click.option(
                f"--{name}", type=form.type, metavar=form.metavar, multiple=form.multiple, help=form.help
            )(decorated)
        return click.option(
            "--set",
            "overrides",
            multiple=True,
            metavar="SECTION.KEY=VALUE",
            help="Change a value of the configuration (see `outertrain config`). May be repeated.",
        )(decorated)

    return decorate


def expand(given: dict[str, Any]) -> list[str]:
    """The overrides that short forms stand for; those not given are None or empty."""
    named = {SHORT_FORMS[name].key: value for name, value in given.items() if value not in (None, ())}
    return [f"{key}={list(value) if isinstance(value, tuple) else value}" for key, value in named.items()]


class ListCommand(click.Command):
    """A command whose option `--baselines` takes all words up to the next option: `--baselines adam sgd`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, spread("--baselines", args))


def spread(option: str, words: Sequence[str]) -> list[str]:
    """The words with `option a b` written as `option a option b`."""
    result: list[str] = []
    inside = False
    for word in words:
        if inside and not word.startswith("-") and result[-1] != option:
            result.append(option)
        inside = word == option or (inside and not word.startswith("-"))
        result.append(word)
    return result


class Place(NamedTuple):
    """Where the jobs of a command are computed; by default, in worker processes on this machine."""

    in_process: bool
    cluster: bool


def place(function: Function) -> Function:
    """Adds `--in-process` and `--cluster`. The command receives them as `place`."""

    @functools.wraps(function)
    def wrapped(*arguments: Any, in_process: bool, cluster: bool, **values: Any) -> Any:
        if in_process and cluster:
            raise click.UsageError("--in-process and --cluster exclude each other: give one of them.")
        return function(*arguments, place=Place(in_process, cluster), **values)

    decorated = click.option(
        "--cluster", is_flag=True, help="Use the workers of the launched run, behind its training."
    )(wrapped)
    return click.option("--in-process", is_flag=True, help="Use one process, without Ray.")(decorated)
