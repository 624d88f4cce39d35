"""Finding or making the run of a command."""

from pathlib import Path

import pytest

from cluster.runs import directory
from cluster.runs.open import Request, newest, open_run
from common.errors import UserError


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
    open_run(request(None, "a", "outer.updates=999", resume=True))
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
    run, undo, _ = open_run(request(None, "a"))
    undo()
    assert directory.names() == []
    run, *_ = open_run(request(None, "a"))
    before = run.config_file.read_bytes()
    _, undo, _ = open_run(request(None, "a", "outer.updates=7", resume=True))
    assert run.config().outer.updates == 7
    undo()
    assert run.config_file.read_bytes() == before


def test_resume_accepts_a_moved_class_store() -> None:
    """Whether its content is the same is for its fingerprint to say."""
    run = open_run(request(None, "a", "dataset.source=store", "dataset.path=old")).run
    open_run(request(None, "a", "dataset.path=new", resume=True))
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
