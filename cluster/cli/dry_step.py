"""One step of a user's task before workers start, in a process of its own: JAX is loaded there, and Ray here."""

import subprocess
import sys

from common import configfile
from common.config import Config
from common.errors import UserError

PREFIX = "outertrain: "  # of the sentence that says what is wrong


def check_task(config: Config) -> str:
    """Returns a sentence about the task of the user; "" for the families that are included.

    Raises:
      UserError: outer-training cannot use the task.
    """
    if ":" not in config.task.family:
        return ""
    command = [sys.executable, "-P", "-m", __name__]  # -P: no module of the current folder replaces ours
    done = subprocess.run(command, input=configfile.dump(config), capture_output=True, text=True)
    if done.returncode == 0:
        return done.stdout.rpartition(PREFIX)[2].strip()  # after whatever the user's code prints
    if PREFIX in done.stderr:
        raise UserError(done.stderr.rpartition(PREFIX)[2].strip())
    raise UserError(
        f"task.family = {config.task.family!r}: the process that tries one step of it ended with code {done.returncode}: "
        f"{done.stderr.strip()[-500:] or 'it printed nothing'}"
    )


def main() -> int:
    """Receives a configuration on standard input; prints the sentence to standard output, or an error to standard error."""
    from common import runtime

    runtime.prepare(pin=False)  # before the next import, which loads JAX
    from common.own_task.dry_step import check_config

    try:
        print(PREFIX + check_config(configfile.from_dict(configfile.parse(sys.stdin.read(), "the configuration"))))
    except UserError as error:
        print(f"{PREFIX}{error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
