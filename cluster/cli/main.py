"""The command line. Text for people goes to standard error; with --json one line for scripts goes to standard output.

Each family of commands stands in a file of `cluster/commands`, which adds its parsers here and imports what it needs
when it runs, so that `outertrain --help` answers at once.
"""

import argparse
import errno
import os
import sys
from collections.abc import Sequence

from cluster.cli import cluster, data, evaluating, measuring, results, training
from cluster.cli.interrupt import Interrupted
from common.errors import UserError

STORAGE = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.EIO, errno.ESTALE)


def main(argv: Sequence[str] | None = None) -> int:
    """Exit codes: 0 done, 2 the request cannot be met (one sentence on standard error), 130 interrupted."""
    arguments = parser().parse_args(argv)
    try:
        return arguments.handler(arguments) or 0
    except UserError as error:
        print(f"outertrain: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader of standard output has left, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.errno not in STORAGE:
            raise
        from common.files import explain

        print(f"outertrain: {error.filename or 'storage'}: {explain(error)}", file=sys.stderr)
        return 2
    except Interrupted as interruption:
        print(interruption, file=sys.stderr)
        return 130
    except KeyboardInterrupt:
        return 130


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="outertrain", description="Learns optimizers on a machine or on a Ray cluster.")
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for family in (training, cluster, evaluating, results, data, measuring):
        family.add(commands)
    return top


if __name__ == "__main__":
    sys.exit(main())
