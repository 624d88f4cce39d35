"""Input beyond what file systems, parsers and numbers can hold: a sentence and exit code 2, never a traceback."""

from pathlib import Path

import pytest
from helpers import run_files

from cluster.cli.main import main
from common.config import Config

LONG = "x" * 5000  # file systems allow 255 bytes
DIGITS = "9" * 5000  # Python converts 4300
EXPORT = ["export", "small-conv-train", "-o"]
TRAIN = ["train", "quickstart", "--set"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("OUTERTRAIN_RUNS", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "command, sentence",
    [
        ([*EXPORT, "."], "cannot write ., which is a folder: name a file with -o"),
        ([*EXPORT, ""], "cannot write ., which is a folder"),
        ([*EXPORT, "/"], "cannot write /, which is a folder"),
        (["evaluate", LONG], "is not a run, an exported theta file or an included one"),
        (["baselines", LONG], "is not a run, a TOML file or a preset"),
        (["search", LONG], "is not a run, a TOML file or a preset"),
        (["export", LONG, "-o", "x.theta"], "no run 'x"),
        (["export", LONG, "-o", "x", "--format", "safetensors"], "no run 'x"),
        (["export", "a", "-o", "x.theta", "--version", DIGITS], "is neither the number of an outer update nor 'best'"),
        ([*TRAIN, f"seed={DIGITS}"], "has a number of thousands of digits: write a number of at most 64 bits"),
        ([*TRAIN, "seed=0x" + "f" * 5000], "seed needs 20001 bits: a number of at most 64 bits is expected"),
        ([*TRAIN, f"task.options.a={3000 * '['}"], "has too many lists or tables inside one another"),
        ([*TRAIN, f"task.options{3000 * '.a'}=1"], "quickstart, with what --set adds, has too many lists or tables"),
    ],
    ids=lambda value: " ".join(word[:16] for word in value) if isinstance(value, list) else "",
)
def test_main_input_beyond_limits_is_a_sentence(
    command: list[str], sentence: str, folder: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main(command) == 2
    out, err = capsys.readouterr()
    assert sentence in err and "Traceback" not in err and out == ""
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    "text, sentence",
    [
        (f"seed = {DIGITS}", "has a number of thousands of digits"),
        (f"[task.options]\na = {3000 * '['}", "has too many lists or tables inside one another"),
        (f"[task.options{3000 * '.a'}]", "has too many lists or tables inside one another"),
    ],
    ids=("digits", "lists", "tables"),
)
def test_train_unreadable_toml_is_a_sentence(text: str, sentence: str, capsys: pytest.CaptureFixture) -> None:
    Path("mine.toml").write_text(text)
    assert main(["train", "mine.toml"]) == 2
    err = capsys.readouterr().err
    assert "mine.toml" in err and sentence in err
    assert not Path("runs").exists()


@pytest.mark.parametrize("command", [["watch", "a", "--once"], ["report", "a"], ["status", "a"]])
def test_history_that_is_a_folder_is_a_sentence(
    command: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    run_files.draw_nothing(monkeypatch)
    (run_files.write_run(folder / "runs" / "a", [], [], Config()) / "history.jsonl").unlink(missing_ok=True)
    (folder / "runs" / "a" / "history.jsonl").mkdir()
    assert main(command) == 2
    assert "a folder exists where a file is needed" in capsys.readouterr().err
