"""Commands that the texts quote are commands that there are."""

import contextlib
import io
import re
import shlex
from pathlib import Path

import pytest
import yaml

from cluster.cli.main import parser

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "deploy/README.md", *sorted((ROOT / "docs").glob("*.md"))]
PLACES = {"N": "3", "...": "fig2"}


def understood(words: list[str]) -> bool:
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        try:
            parser().parse_args([PLACES.get(word, word) for word in words])
        except SystemExit as end:
            return end.code == 0  # --help
    return True


def quoted(text: str) -> list[str]:
    """Commands in blocks of code and between backticks."""
    text = re.sub(r"\\\n\s*", " ", text)
    blocks = re.findall(r"^    .*?\boutertrain ([a-z][^'\n#&|]*)", text, re.MULTILINE)
    inline = re.findall(r"`outertrain ([a-z][^`]*)`", text)
    return [" ".join(command.split()) for command in (*blocks, *inline)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_of_a_page_parses(page: Path) -> None:
    commands = [
        shlex.split(re.sub(r"\[(--[^\]]*)\]", r"\1", command).replace("mini|paper", "mini"))
        for command in quoted(page.read_text())
    ]
    assert [command for command in commands if not understood(command)] == []


def test_every_command_that_an_alert_advises_parses() -> None:
    """A command ends where its sentence goes on: at the longest part that parses, which leaves no option over."""
    rules = yaml.safe_load((ROOT / "deploy/monitoring/rules/alerts.yml").read_text())["groups"][0]["rules"]
    for rule in rules:
        for command in re.findall(r"\boutertrain ([a-z]+ [^;,:()]*)", rule["annotations"]["action"]):
            words = command.rstrip(". ").split()
            most = max((n for n in range(1, len(words) + 1) if understood(words[:n])), default=0)
            assert most and not any(re.match(r"--|[A-Z]+$", word) for word in words[most:]), (rule["alert"], command)
