"""What travels to workers from the folder of a user's task family."""

from dataclasses import replace
from pathlib import Path

import pytest

from cluster.actors import user_files
from common.config import Config, EvaluationConfig, TaskConfig
from common.errors import UserError


def config(family: str) -> Config:
    return replace(Config(), task=TaskConfig(family=family))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    here = tmp_path / "here"
    task = ("mine.py", "waves.npz", "package/__init__.py", "package/part.py", "package/table.bin", "loose/x.csv")
    for name in (*task, "package/__pycache__/x.pyc", ".git/config", "runs/a/log", "venv/pyvenv.cfg", "venv/lib/x.py"):
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        (here / name).write_text(name)
    monkeypatch.chdir(here)
    monkeypatch.delenv("OUTERTRAIN_RUNS", raising=False)
    return tmp_path


TASK = {
    f"user/{name}"
    for name in ("mine.py", "waves.npz", "package/__init__.py", "package/part.py", "package/table.bin", "loose/x.csv")
}


def paths(top: Path) -> set[str]:
    return {str(path.relative_to(top)) for path in top.rglob("*") if path.is_file()}


@pytest.mark.parametrize("family", ["mine:tasks", "package.part:tasks"])
def test_stage_copies_code_and_data_into_a_subfolder(folder: Path, family: str) -> None:
    staged = user_files.stage(config(family), folder)
    assert paths(staged) == TASK and not any(path.is_symlink() for path in staged.rglob("*"))
    assert (staged / "user/waves.npz").read_text() == "waves.npz"


@pytest.mark.parametrize("family", ["conv", "installed_module:tasks"])
def test_stage_copies_nothing_for_other_families(folder: Path, family: str) -> None:
    assert paths(user_files.stage(config(family), folder)) == set()


def test_stage_files_over_the_limit_say_how_data_travel(folder: Path) -> None:
    with open("package/weights.bin", "wb") as file:
        file.truncate(4 * 2**30)  # sparse
    with pytest.raises(UserError, match=r"next to mine .*64 MiB .*package/weights.bin.*shared storage.*task.options"):
        user_files.stage(config("mine:tasks"), folder)


def test_stage_on_this_machine_links_data_of_any_size(folder: Path) -> None:
    with open("package/weights.bin", "wb") as file:
        file.truncate(4 * 2**30)
    staged = user_files.stage(config("mine:tasks"), folder, here_only=True)
    assert paths(staged) == TASK | {"user/package/weights.bin"}
    assert {p.suffix for p in staged.rglob("*") if p.is_file() and not p.is_symlink()} == {
        ".py"
    }  # a run keeps its code


def test_stage_copies_the_module_of_an_optimizer(folder: Path) -> None:
    own = replace(Config(), evaluation=EvaluationConfig(baselines=("adam", "mine:optimizer")))
    assert paths(user_files.stage(own, folder)) == TASK


def test_stage_leaves_out_links_to_themselves(folder: Path) -> None:
    Path("loop").symlink_to("loop")
    assert paths(user_files.stage(config("mine:tasks"), folder)) == TASK


@pytest.mark.parametrize("here_only", [False, True])
def test_stage_follows_a_link_to_the_package_of_the_task(folder: Path, here_only: bool) -> None:
    """And no other link to a folder, of which some lead in a circle."""
    Path("package").rename(folder / "elsewhere")
    for name in ("package", "other"):
        Path(name).symlink_to(folder / "elsewhere")
    (folder / "elsewhere" / "package").symlink_to(folder / "elsewhere")
    staged = user_files.stage(config("package.part:tasks"), folder, here_only=here_only)
    assert paths(staged) == TASK and not (staged / "user" / "package").is_symlink()
