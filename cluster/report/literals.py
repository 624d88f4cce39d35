"""Text as Python literals, for modules that are written."""


def escaped(text: str) -> str:
    """An ASCII string literal whose value is any text, in double quotes where that needs no escape."""
    literal = ascii(text)
    return literal if '"' in literal else f'"{literal[1:-1]}"'


def in_lines(text: str) -> str:
    """A string literal of lines of 100 characters; `text` has none that need an escape."""
    lines = [f'"{text[k : k + 100]}"' for k in range(0, len(text), 100)]
    return lines[0] if len(lines) == 1 else "\n    ".join(["(", *lines]) + "\n)"
