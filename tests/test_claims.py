"""The table of the paper's claims in docs/results.md: its numbers are those of the committed figures."""

import json
import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parent.parent / "docs"
TITLE = "## Every claim of the paper"
OUTCOMES = {"holds", "does not hold", "undecided", "held by tests", "not run"}
NUMBER = re.compile(r"-?\d+\.\d+(?:e[+-]\d+)?")  # with a decimal point: what was measured


def rows() -> list[list[str]]:
    """The cells of the table: section, claim, shown by, result, outcome."""
    section = (DOCS / "results.md").read_text().split(TITLE)[1].split("\n##")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in line[1:-1].split("|")] for line in lines]


def sentence(shown: str) -> str:
    """What the figure says, or the named section of the page: "results, [Title](#title)"."""
    if section := re.fullmatch(r"results, \[(.+)\]\(#.+\)", shown):
        return (DOCS / "results.md").read_text().split(f"\n## {section[1]}\n")[1].split("\n## ")[0]
    text: str = json.loads((DOCS / "figures" / f"{shown}.json").read_text())["sentence"]
    return text


def test_every_figure_of_the_table_has_its_date_and_test() -> None:
    text = (DOCS / "results.md").read_text().split("### Commands, dates, machines and tests")[1].split("\n## ")[0]
    told = {line.split("|")[1].strip() for line in text.splitlines() if line.startswith("|")}
    shown = {row[2] for row in rows() if row[-1] not in ("held by tests", "not run") and "[" not in row[2]}
    assert shown - told == set()


def test_every_claim_has_an_outcome() -> None:
    assert len(rows()) > 30
    assert {row[-1] for row in rows()} <= OUTCOMES


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[1][:40])
def test_numbers_of_a_claim_are_those_of_its_figure(row: list[str]) -> None:
    _, _, shown, result, outcome = row
    if outcome == "held by tests":
        name = shown.strip("`")
        assert any(f"def {name}(" in path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    elif outcome != "not run":
        assert set(NUMBER.findall(result)) - set(NUMBER.findall(sentence(shown))) == set()
