"""`python -m workers.bench FIGURE`, with a `Figure` as JSON: measures it and prints its outcome as JSON."""

import json
import sys

from common import runtime
from workers.bench.figure import Figure, measure


def main(text: str) -> None:
    figure = Figure(*json.loads(text))
    runtime.prepare(pin=figure.pinned)
    print(json.dumps(measure(figure)._asdict()), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
