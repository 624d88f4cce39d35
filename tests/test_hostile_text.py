"""Text from names, files and configuration stays text: in HTML, JSON, TOML, metric labels, paths and on the terminal.

Export is tested in test_export.py, messages in test_messages.py.
"""

import io
import json
import os
import shlex
import subprocess
import sys
import tomllib
from html.parser import HTMLParser
from pathlib import Path

import pytest
from helpers import run_files
from helpers.archives import read_zip, write_archives, write_zip
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from cluster.cli import console
from cluster.cli.main import main
from cluster.monitoring.fleet_metrics import FleetMetrics
from cluster.monitoring.fleet_status import FleetStatus
from cluster.monitoring.targets import FOLDER_VARIABLE, target_text, write_targets
from cluster.report.page import write_report
from cluster.report.table import final_table
from cluster.runs import directory
from cluster.runs.directory import RunDirectory, check_name
from common import configfile
from common.config import Config, DatasetConfig
from common.data.imagenet_archives import open_archives
from common.data.prepare import prepare
from common.errors import UserError, printable

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "'; rm -rf ~; echo '",
    "$(touch executed) `touch executed` ${HOME}",
    "{{ 7 * 7 }} $title {0} %s",
    'quote " backslash \\ newline \n tab \t',
    "-rf",
    "[red]markup[/] [/not open] :cat:",
    "escape \x1b[2J bell \x07 return \r",
    "bidirectional \u202e separator \u2028 null-width \u200b",
)
AS_NAME = tuple(text.replace("/", "|") for text in HOSTILE)  # what a directory can be called


class Elements(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        assert not any(name.startswith("on") for name, _ in attrs)

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize("text", AS_NAME)
def test_report_page_shows_names_and_values_as_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    run_files.draw_nothing(monkeypatch)  # no name or value is part of a picture
    config = configfile.from_dict({"dataset": {"path": text}})
    run = run_files.write_run(tmp_path / text, run_files.history(3), [], config)
    page = Elements(write_report(run).read_text(encoding="utf-8"))
    assert "script" not in page.tags and page.text.count(text.replace("\r", "\n")) >= 2


@pytest.mark.parametrize("text", HOSTILE)
def test_configuration_keeps_any_text(text: str) -> None:
    config = configfile.from_dict({"dataset": {"path": text}, "outer": {"options": {"note": text, "x.y = 1 #": 2}}})
    assert configfile.from_dict(tomllib.loads(configfile.dump(config))) == config


@pytest.mark.parametrize("tree", [{"dataset": {"path": "a\udcff"}}, {"outer": {"options": {"a\udcff": 1}}}])
def test_configuration_rejects_bytes_that_are_not_utf8(tree: dict) -> None:
    with pytest.raises(UserError, match="not UTF-8"):
        configfile.from_dict(tree)


@pytest.mark.parametrize("text", AS_NAME)
def test_target_files_hold_the_name_and_stay_in_their_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    (tmp_path / "targets").mkdir()
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "targets"))
    run = RunDirectory(tmp_path / text)
    run.path.mkdir()
    assert {path.parent for path in write_targets(run, "learner", "127.0.0.1", 1)} == {run.path, tmp_path / "targets"}
    assert json.loads(target_text(text, "learner", "127.0.0.1", 1))[0]["labels"]["run"] == text


@pytest.mark.parametrize("text", HOSTILE)
def test_metric_labels_survive_exposition(text: str) -> None:
    metrics = FleetMetrics()
    metrics.observe_status(FleetStatus(target=3, nodes={text: 3}, pinned={text: 3}))
    families = text_string_to_metric_families(generate_latest(metrics.registry).decode())
    found = {s.labels["node"]: s.value for f in families for s in f.samples if "node" in s.labels}
    assert found == {text: 3.0}


@pytest.mark.parametrize(
    "name", [*HOSTILE, "", ".", "..", "../up", "a/b", "a b", "a\udcff", ".hidden", "-x", "x" * 300]
)
def test_run_names_that_need_quoting_are_rejected(name: str) -> None:
    """A name is part of paths, Ray actors, systemd instances, URLs and shell commands."""
    with pytest.raises(UserError):
        check_name(name)


@pytest.mark.parametrize("name", ["night", "night-2", "a.b_c", "Ünïcode", "1"])
def test_run_names_that_pass_need_no_quoting(name: str) -> None:
    check_name(name)
    assert shlex.quote(name) == name or not name.isascii()


@pytest.mark.parametrize("text", [*AS_NAME, "a\udcff"])
def test_commands_escape_names_on_the_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, text: str
) -> None:
    monkeypatch.setenv("OUTERTRAIN_RUNS", str(tmp_path))
    run_files.write_run(tmp_path / text, run_files.history(1), [], Config())
    assert main(["list"]) == 0 and main(["status", "--", text]) == 0 and main(["status", "missing"]) == 2
    out, err = capsys.readouterr()
    assert all(c.isprintable() or c in "\n\t" for c in out + err)
    out.encode()
    assert directory.names() == [text] and main(["list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["run"] == text


def test_printable_escapes_control_characters_only() -> None:
    assert printable("é 🐱 line\n\ttab") == "é 🐱 line\n\ttab"
    assert printable("\x1b[2J\r\x07\udcff\u202e") == "\\x1b[2J\\r\\x07\\udcff\\u202e"


@pytest.mark.parametrize("text", HOSTILE)
def test_progress_shows_text_as_it_is(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    for display in (console.PlainDisplay(), console.TerminalDisplay()):
        with display:
            display.say(text)
            display.counting(text, 1, 2)
    assert stream.getvalue().count(printable(text).split("\n")[0]) >= 2


@pytest.mark.parametrize("text", ["my run", "it's", "$HOME", "a;b", "-x", "tab\there"])
def test_printed_commands_are_quoted_for_the_shell(text: str) -> None:
    words = shlex.split(final_table(None, text).partition(": ")[2])
    assert words == ["outertrain", "evaluate", *(["--"] if text.startswith("-") else []), text]


def test_archive_members_never_become_paths(tmp_path: Path) -> None:
    source, store = tmp_path / "source", tmp_path / "store"
    source.mkdir()
    write_archives(source)
    for number, path in enumerate(source.iterdir()):
        outside = ("../../", f"{tmp_path}/absolute/")[number]
        write_zip(path, {outside + name: content for name, content in read_zip(path).items()})
    prepare(open_archives(source, 8), store, lambda *_: None)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source", "store"]
    assert all(path.parent == store for path in store.rglob("*"))


def test_run_in_a_folder_whose_name_is_no_text_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTERTRAIN_RUNS", str(tmp_path))
    path = "caf\udce9/data"  # as a relative path becomes, once it is made absolute
    config = Config(dataset=DatasetConfig(path=path))
    with pytest.raises(UserError, match=r"not UTF-8 text .*caf.udce9/data.*: rename"):
        directory.create("night", config)
    assert list(tmp_path.iterdir()) == []


def test_commands_read_utf8_whatever_the_locale() -> None:
    program = "from cluster.cli.main import use_utf8; use_utf8(); print('\\u015b', open(0).encoding)"
    ascii_only = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=ascii_only, check=True, capture_output=True, stdin=subprocess.DEVNULL
    )
    assert done.stdout.decode() == "ś utf-8\n"
