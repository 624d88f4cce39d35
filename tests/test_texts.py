"""The texts agree with the code: quoted commands parse, links resolve, every configuration key is explained."""

import contextlib
import io
import re
import shlex
import tomllib
from dataclasses import fields
from pathlib import Path
from unittest import mock

import click
import pytest
import yaml

from cluster.cli.main import COMMANDS, main
from common.config import Config

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "deploy/README.md", *sorted((ROOT / "docs").glob("*.md"))]
PLACES = {"N": "3", "...": "fig2"}


def understood(words: list[str]) -> bool:
    """Whether the command line can be parsed; the command itself is not run."""
    silent = contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO())
    with silent[0], silent[1], mock.patch.object(click.Command, "invoke", return_value=None):
        return main([PLACES.get(word, word) for word in words]) == 0


@pytest.mark.parametrize(
    "words", ["trian", "train --sat a=b", "train a b", "scale a", "scale a many", "logs a --lines"]
)
def test_understood_for_a_mistake_is_false(words: str) -> None:
    assert not understood(words.split())


def quoted(text: str) -> list[str]:
    """Commands in blocks of code and between backticks."""
    text = re.sub(r"\\\n\s*", " ", text)
    lines = re.findall(r"^    .*\boutertrain .*", text, re.MULTILINE)
    blocks = [command for line in lines for command in re.findall(r"\boutertrain ([a-z][^;'\n#&|]*)", line)]
    inline = re.findall(r"`outertrain ([a-z][^`]*)`", text)
    commands = [" ".join(command.split()) for command in (*blocks, *inline)]
    return [command for command in commands if command not in COMMANDS]  # a name alone quotes no arguments


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_quoted_on_a_page_parse(page: Path) -> None:
    commands = [
        shlex.split(re.sub(r"\[(--[^\]]*)\]", r"\1", command).replace("mini|paper", "mini"))
        for command in quoted(page.read_text())
    ]
    assert [command for command in commands if not understood(command)] == []


def test_commands_advised_by_alerts_parse() -> None:
    """A command ends where its sentence continues: at the longest part that parses, with no option left over."""
    rules = yaml.safe_load((ROOT / "deploy/monitoring/rules/alerts.yml").read_text())["groups"][0]["rules"]
    advised = [
        (r, c) for r in rules for c in re.findall(r"\boutertrain ([a-z]+ [^;,:()]*)", r["annotations"]["action"])
    ]
    assert len(advised) > 3
    for rule, command in advised:
        words = command.rstrip(". ").split()
        most = max((n for n in range(1, len(words) + 1) if understood(words[:n])), default=0)
        assert most and not any(re.match(r"--|[A-Z]+$", word) for word in words[most:]), (rule["alert"], command)


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub makes of a page's headings."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_of_a_page_resolve(page: Path) -> None:
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if not link.startswith("https://") and not (target.exists() and (not anchor or anchor in anchors(target))):
            broken.append(link)
    assert broken == []


def configuration_keys() -> list[tuple[str, str]]:
    sections = {section.name: section.default_factory for section in fields(Config)}
    return [(name, key.name) for name, make in sections.items() if callable(make) for key in fields(make)]


def test_every_key_is_used_by_an_example_or_explained() -> None:
    explained = (ROOT / "docs/options.md").read_text()
    figures = "\n".join(path.read_text() for path in (ROOT / "workers/figures").glob("*.py"))
    examples = [*(ROOT / "common/presets").glob("*.toml"), ROOT / "docs/own_task.toml"]
    set_by_examples = {
        (section, key)
        for path in examples
        for section, keys in tomllib.loads(path.read_text()).items()
        if isinstance(keys, dict)
        for key in keys
    }
    unexplained = [
        f"{section}.{key}"
        for section, key in configuration_keys()
        if (section, key) not in set_by_examples
        and f"{section}.{key}=" not in figures
        and f"`{section}.{key}" not in explained
    ]
    assert unexplained == []
