"""`python -m workers.bench FIGURE [ROUNDS]`: measures one figure of the engine and writes its outcome as JSON."""

import json
import sys

from common import runtime
from workers.bench.catalogue import FIGURES
from workers.bench.figure import measure


def main(name: str, rounds: str | None = None) -> None:
    figure = next(figure for figure in FIGURES if figure.name == name)
    runtime.prepare(pin=figure.pinned)
    print(json.dumps(measure(figure, int(rounds) if rounds else None)), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
