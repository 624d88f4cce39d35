"""The one exception that stands for a person's mistake or their machine's state, not for a bug."""


class UserError(Exception):
    """Bad input: its text says what is wrong, why, and what to do. The command line prints it and exits with 2."""


def last_line(traceback: str) -> str:
    lines = [line for line in traceback.strip().splitlines() if line.strip()]
    return lines[-1].strip() if lines else "no reason given"
