"""A record of an outer update, for the tests of what reads them."""

import json
from pathlib import Path

from common.update_record import UpdateRecord

LINE = json.loads((Path(__file__).parent / "golden_history.jsonl").read_text().splitlines()[0])


def record(version: int) -> UpdateRecord:
    return UpdateRecord.from_json({**LINE, "version": version})
