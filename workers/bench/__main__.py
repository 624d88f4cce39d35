"""`python -m workers.bench FIGURES`, a JSON list of `Figure`: measures them in turn and prints a line of JSON for each."""

import json
import sys

from common import runtime
from workers.bench.figure import Figure, measure


def main(text: str) -> None:
    figures = [Figure(*fields) for fields in json.loads(text)]
    runtime.prepare(pin=figures[0].pinned)
    for figure in figures:
        print(json.dumps(measure(figure)._asdict()), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
