"""One step of a user's task before workers start, in a process of its own: JAX is loaded there, and Ray here."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress

from common import configfile
from common.config import Config
from common.errors import UserError

FOUND, ERROR = "found", "error"  # keys of what the process prints
POLL_S = 0.1


def ignore() -> None:
    """The check of commands that an interrupt ends at once."""


def check_task(config: Config, check: Callable[[], None] = ignore) -> str:
    """Returns sentences about the tasks of the user; "" for the families that are included.

    Args:
      check: called while the tasks are tried; what it raises ends that, such as `Interrupt.check`.

    Raises:
      UserError: outer-training cannot use a task.
    """
    return "\n".join(filter(None, (_try(member.config, check) for member in config.members)))


def _try(config: Config, check: Callable[[], None]) -> str:
    if ":" not in config.task.family:
        return ""
    command = [sys.executable, "-P", "-m", __name__]  # -P: no module of the current folder replaces ours
    done = _completed(command, configfile.dump(config), check)
    answer = done.stdout.rstrip("\n").rpartition("\n")[2]  # after whatever the user's code prints
    if done.returncode or not answer.startswith("{"):
        raise UserError(
            f"task.family = {config.task.family!r}: the process that tries one step of it ended with code {done.returncode}: "
            f"{done.stderr.strip()[-500:] or 'it printed nothing'}"
        )
    said = json.loads(answer)
    if ERROR in said:
        raise UserError(said[ERROR])
    return str(said[FOUND])


def _completed(command: list[str], text: str, check: Callable[[], None]) -> "subprocess.CompletedProcess[str]":
    """Runs a command with `text` as its input. An exception here, from `check` too, kills it and what it has started.

    It is in a session of its own: Ctrl-C in a terminal reaches all processes of this one, and its traceback would be
    taken for a fault of the task.
    """
    pipe, given = subprocess.PIPE, [text]  # only the first call may give it
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, start_new_session=True) as child:
        try:
            while True:
                check()
                with suppress(subprocess.TimeoutExpired):
                    out, err = child.communicate(given.pop(0) if given else None, timeout=POLL_S)
                    return subprocess.CompletedProcess(command, child.returncode, out, err)
        except BaseException:
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            raise


def main() -> None:
    """Receives a configuration on standard input; its last line of standard output is a JSON object."""
    from common import runtime

    runtime.prepare(pin=False)  # before the next import, which loads JAX
    from common.own_task.dry_step import check_config

    try:
        config = configfile.from_dict(configfile.parse(sys.stdin.read(), "the configuration"))
        said = {FOUND: check_config(config)}
    except UserError as error:
        said = {ERROR: str(error)}
    print(f"\n{json.dumps(said)}")


if __name__ == "__main__":
    main()
