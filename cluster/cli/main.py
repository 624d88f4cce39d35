"""The entry point of the command line: finds the command, and turns its errors into one sentence and an exit code.

Messages for people go to standard error. With --json a command prints one line for scripts to standard output.
"""

import codecs
import difflib
import errno
import importlib
import locale
import os
import sys
from collections.abc import Sequence

import click

from cluster.cli.interrupt import Interrupted
from common.errors import UserError, printable

COMMANDS = {  # module of cluster.cli, which holds the command -> its line in `outertrain --help`
    "train": "Train, evaluate and report on this machine.",
    "plan": "Print time and cost of a run before it is started.",
    "launch": "Start a run on the Ray cluster of this machine, and return.",
    "scale": "Change the number of workers of a launched run.",
    "status": "Show the state of a run.",
    "watch": "Show a run's charts, workers and alerts, live.",
    "stop": "Stop a launched run with a checkpoint.",
    "logs": "Print the log of a run.",
    "list": "List the runs.",
    "evaluate": "Compare a learned optimizer with tuned baselines on unseen tasks.",
    "baselines": "Tune hand-designed optimizers on the tasks of an evaluation.",
    "search": "Search the hyper-parameters of Adam, RMSProp or momentum at random.",
    "report": "Write the HTML report of a run.",
    "export": "Save a learned optimizer as a Python module or a theta file.",
    "reproduce": "Recompute figures of the paper.",
    "config": "Explain the configuration keys.",
    "data": "Prepare image data sets.",
    "init-task": "Write a starting point for a model of your own.",
    "bench": "Measure the unroll engine and the learner on this machine.",
}
STORAGE = (  # errors that say something about files or disks, not about this program
    *(errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.EIO, errno.ESTALE),
    *(errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP),
)


class Commands(click.Group):
    """A group that imports the module of a command when the command is used, so that `--help` needs none of them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"cluster.cli.{cmd_name.replace('-', '_')}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in COMMANDS:
            close = difflib.get_close_matches(args[0], COMMANDS, n=1, cutoff=0.5)
            hint = f"did you mean {close[0]}?" if close else f"commands are {', '.join(COMMANDS)}."
            ctx.fail(f"There is no command {args[0]!r}: {hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.command(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    no_args_is_help=True,
)
def outertrain() -> None:
    """Learn optimizers, on one machine or on a Ray cluster."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit code: 0 done, 2 the request cannot be met, 130 interrupted."""
    try:
        arguments = _given() if argv is None else list(argv)
        # Not outertrain.main(), which would turn an interrupt and a closed pipe into exit codes of its own.
        with outertrain.make_context("outertrain", arguments) as context:
            return outertrain.invoke(context) or 0
    except click.exceptions.NoArgsIsHelpError as error:
        return complain(error.format_message(), prefix="")
    except click.UsageError as error:
        path, message = error.ctx.command_path if error.ctx else "outertrain", error.format_message()
        return complain(f"{message}{'' if message[-1] in '.?' else '.'} See `{path} --help`.")
    except (UserError, click.ClickException) as error:
        return complain(error.format_message() if isinstance(error, click.ClickException) else str(error))
    except click.exceptions.Exit as end:
        return end.exit_code
    except BrokenPipeError:  # the reader of standard output has closed it, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.errno not in STORAGE:
            raise
        from common.files import explain

        return complain(f"{error.filename or 'storage'}: {explain(error)}")
    except Interrupted as interruption:
        print(interruption, file=sys.stderr)
        return 130
    except (KeyboardInterrupt, click.Abort):
        return 130


def _given() -> list[str]:
    """The arguments of this process."""
    use_utf8()
    return sys.argv[1:]


def use_utf8() -> None:
    """Starts this program again in Python's UTF-8 mode where the shell's locale has another encoding.

    Else names and files would be read in that encoding, on this machine alone. Processes that it starts inherit the mode.
    """
    if sys.flags.utf8_mode or codecs.lookup(locale.getpreferredencoding(False)).name == "utf-8":
        return
    os.execve(sys.executable, sys.orig_argv, {**os.environ, "PYTHONUTF8": "1"})


def complain(sentence: str, prefix: str = "outertrain: ") -> int:
    print(f"{prefix}{printable(sentence)}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
