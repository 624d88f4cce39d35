"""Where a user's code is, for messages: file, line and the text of the line."""

import ast
import inspect
import linecache
import sysconfig
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

TOP = Path(__file__).resolve().parents[2]
OURS = tuple(str(TOP / package) for package in ("common", "learner", "workers", "cluster"))
LIBRARIES = tuple({sysconfig.get_paths()[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")})


def place(function: Callable[..., Any]) -> str:
    """`file:line: source` of a function's last `return`, or of its first line."""
    function = inspect.unwrap(function)
    try:
        lines, first = inspect.getsourcelines(function)
        file = inspect.getsourcefile(function) or "?"
        returns = [
            node for node in ast.walk(ast.parse(textwrap.dedent("".join(lines)))) if isinstance(node, ast.Return)
        ]
    except (OSError, TypeError, SyntaxError):  # a lambda inside of a call is no statement of its own
        returns = []
    else:
        offset = max((node.lineno for node in returns), default=1) - 1
        return _shown(file, first + offset, lines[offset])
    try:
        code = function.__code__
    except AttributeError:  # a callable object
        return repr(function)
    return _shown(code.co_filename, code.co_firstlineno, linecache.getline(code.co_filename, code.co_firstlineno))


def place_of_error(error: BaseException) -> str:
    """`file:line: source` of the innermost line of the user's own code in a traceback; "" if there is none."""
    frames = [frame for one in _chain(error) for frame in _frames(one.__traceback__)]
    own = [(file, line) for file, line in frames if is_own(file)]
    if not own:
        return ""
    file, line = own[-1]
    return _shown(file, line, linecache.getline(file, line))


def is_own(file: str) -> bool:
    """Whether a file is neither ours nor of a library."""
    return not file.startswith("<") and not file.startswith((*OURS, *LIBRARIES)) and "site-packages" not in file


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The causes of an error, the first one first, then the error itself."""
    if (cause := error.__cause__) is not None:
        yield from _chain(cause)
    yield error


def _frames(traceback: TracebackType | None) -> Iterator[tuple[str, int]]:
    while traceback is not None:
        yield traceback.tb_frame.f_code.co_filename, traceback.tb_lineno
        traceback = traceback.tb_next


def _shown(file: str, line: int, text: str) -> str:
    path = Path(file)
    here = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    return f"{here}:{line}: `{text.strip()}`"
