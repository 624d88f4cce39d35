"""The levels of tests: the default suite leaves out each marker, and one command runs its tests (see also conftest.py)."""

import re
import shlex
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
OPTIONS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]
MARKERS = [text.partition(":")[0] for text in OPTIONS["markers"]]
DEFAULT = shlex.split(OPTIONS["addopts"])[-1]
OF_CI = ("heavy", "cluster", "faults")  # the others need an idle machine, root or extras


def expressions(path: str) -> list[str]:
    """The tests that the commands of a script or page select by their markers, the files that they name left aside."""
    commands = re.findall(r"^ *(?:\w+=\d )?pytest\b(.*)", (ROOT / path).read_text(), re.MULTILINE)
    words = [shlex.split(command, comments=True) for command in commands]
    return [command[command.index("-m") + 1] if "-m" in command else DEFAULT for command in words]


def selects(expression: str, *markers: str) -> bool:
    return bool(eval(expression, {name: name in markers for name in MARKERS}))


@pytest.mark.parametrize("marker", MARKERS)
def test_default_suite_leaves_out_each_marker(marker: str) -> None:
    assert selects(DEFAULT) and not selects(DEFAULT, marker)


@pytest.mark.parametrize("marker", ["", *OF_CI])
def test_ci_runs_each_of_its_levels_once(marker: str) -> None:
    assert [selects(expression, marker) for expression in expressions(".ci/run")].count(True) == 1


@pytest.mark.parametrize("marker", sorted({*MARKERS} - {"slow"}))
def test_readme_has_one_command_for_each_marker(marker: str) -> None:
    assert [selects(expression, marker) for expression in expressions("README.md")].count(True) == 1
    assert "tests/nightly" in (ROOT / "README.md").read_text()


def test_nightly_runs_heavy_and_slow_tests() -> None:
    assert set(re.findall(r'" -m (\w+)', (ROOT / "tests/nightly").read_text())) == {"heavy", "slow"}
