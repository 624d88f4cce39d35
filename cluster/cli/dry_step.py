"""One step of a user's task before workers start, in a process of its own: JAX is loaded there, and Ray here."""

import json
import subprocess
import sys

from common import configfile
from common.config import Config
from common.errors import UserError

FOUND, ERROR = "found", "error"  # keys of what the process prints


def check_task(config: Config) -> str:
    """Returns sentences about the tasks of the user; "" for the families that are included.

    Raises:
      UserError: outer-training cannot use a task.
    """
    return "\n".join(filter(None, (_check(member.config) for member in config.members)))


def _check(config: Config) -> str:
    if ":" not in config.task.family:
        return ""
    command = [sys.executable, "-P", "-m", __name__]  # -P: no module of the current folder replaces ours
    done = subprocess.run(command, input=configfile.dump(config), capture_output=True, text=True)
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
