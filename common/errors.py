"""The exception for mistakes of the user and states of the machine, as opposed to bugs."""


class UserError(Exception):
    """Bad input or an unusable environment. The text says what is wrong, why, and what to do about it.

    The command line prints it without a traceback and exits with code 2.
    """


def printable(text: str) -> str:
    """The text with control and other invisible characters escaped: names and files cannot drive the terminal."""
    return "".join(c if c.isprintable() or c in "\n\t" else ascii(c)[1:-1] for c in text)


def last_line(traceback: str) -> str:
    """The last non-empty line of a traceback: the exception and its message."""
    lines = [line for line in traceback.strip().splitlines() if line.strip()]
    return lines[-1].strip() if lines else "no reason given"
