"""Finding or making the run of a command."""

from pathlib import Path

import pytest

from cluster.runs import directory
from cluster.runs.open import Request, newest, open_run
from common.errors import UserError
from learner.lineage import claim


@pytest.fixture(autouse=True)
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTERTRAIN_RUNS", str(tmp_path / "runs"))
    monkeypatch.chdir(tmp_path)


def request(source: str | None = None, name: str | None = None, *overrides: str, resume: bool = False) -> Request:
    return Request(source, name, overrides, resume=resume)


def test_open_run_is_named_after_its_configuration() -> None:
    assert open_run(request()).run.name == "quickstart"
    assert open_run(request("quickstart")).run.name == "quickstart-2"
    assert open_run(request("paper", "mine")).run.name == "mine"
    Path("own.toml").write_text("seed = 3")
    run = open_run(request("own.toml", None, "outer.updates=5")).run
    assert run.name == "own" and run.config().seed == 3 and run.config().outer.updates == 5


def test_open_run_makes_paths_absolute(tmp_path: Path) -> None:
    run = open_run(request(None, None, "dataset.source=store", "dataset.path=images")).run
    assert run.config().dataset.path == str(tmp_path / "images")
    assert open_run(request(None, None, "dataset.text=book")).run.config().dataset.text == str(tmp_path / "book")


def test_resume_finds_the_newest_run_of_a_configuration() -> None:
    with pytest.raises(UserError, match="no run 'quickstart'"):
        open_run(request(resume=True))
    for _ in range(3):
        open_run(request())
    assert newest("quickstart") == "quickstart-3"
    assert open_run(request(resume=True)).run.name == "quickstart-3"
    assert open_run(request(None, "quickstart-2", resume=True)).run.name == "quickstart-2"


def test_resume_rejects_changes_of_digested_sections() -> None:
    run = open_run(request(None, "a", "seed=5")).run
    open_run(request(None, "a", "outer.updates=999", resume=True)).apply()
    assert run.config().outer.updates == 999 and run.config().seed == 5
    before = run.config_file.read_bytes()
    with pytest.raises(UserError, match=r"trained with another \[estimator\]"):
        open_run(request(None, "a", "estimator.sigma=0.2", resume=True))
    assert run.config_file.read_bytes() == before


def test_open_run_bad_configuration_creates_nothing() -> None:
    with pytest.raises(UserError, match=r"unknown key outer.updatse: did you mean outer.updates"):
        open_run(request(None, "a", "outer.updatse=1"))
    assert directory.names() == []


def test_undo_restores_the_directory() -> None:
    open_run(request(None, "a")).undo()
    assert directory.names() == []
    run = open_run(request(None, "a")).run
    before = run.config_file.read_bytes()
    opened = open_run(request(None, "a", "outer.updates=7", resume=True))
    assert opened.config.outer.updates == 7 and run.config_file.read_bytes() == before
    opened.apply()
    assert run.config().outer.updates == 7
    opened.undo()
    assert run.config_file.read_bytes() == before


def test_undo_keeps_the_configuration_of_updates_that_were_made() -> None:
    opened = open_run(request(None, "a"))
    resumed = open_run(request(None, "a", "outer.updates=7", resume=True))
    resumed.apply()
    claim(opened.run.epochs, None, 0.0)
    (opened.run.checkpoints / "e0001-v0000003.ckpt").write_bytes(b"")
    resumed.undo()
    assert opened.run.config().outer.updates == 7


def test_undo_before_apply_keeps_what_another_has_written() -> None:
    """A command that does not get the lock leaves the configuration to the process that has it."""
    run = open_run(request(None, "a")).run
    late = open_run(request(None, "a", "outer.updates=7", resume=True))
    open_run(request(None, "a", "outer.updates=9", resume=True)).apply()
    late.undo()
    assert run.config().outer.updates == 9


def test_resume_accepts_a_moved_class_store() -> None:
    """Whether its content is the same is for its fingerprint to say."""
    run = open_run(request(None, "a", "dataset.source=store", "dataset.path=old")).run
    open_run(request(None, "a", "dataset.path=new", resume=True)).apply()
    assert Path(run.config().dataset.path).name == "new"
    with pytest.raises(UserError, match=r"trained with another \[dataset\]"):
        open_run(request(None, "a", "dataset.valid_fraction=0.5", resume=True))


def test_resume_reports_differences_from_the_named_file() -> None:
    Path("own.toml").write_text("seed = 3")
    assert open_run(request("own.toml", None, "workers.count=4")).note == ""
    note = open_run(request("own.toml", resume=True)).note
    assert "differs from own.toml: workers.count = 4 (there: 2); --set changes a key" in note
    assert open_run(request("own.toml", None, "workers.count=2", resume=True)).note == ""
    assert open_run(request(None, "own", resume=True)).note == ""
