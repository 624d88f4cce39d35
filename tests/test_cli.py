"""The command line: its output, its exit codes, and one sentence for every mistake, without any loss of data."""

import errno
import json
import os
import socket
from pathlib import Path

import numpy as np
import pytest
from helpers import run_files
from helpers.archives import batch, write_archives, write_zip

from cluster.cli.main import main
from common import pretrained
from common.config import OptimizerConfig

SMALL = """
[task]
family = "quadratic"
inner_steps = 8
options = {dimension = 2}
[optimizer]
family = "sgd"
learning_rate = 0.05
[curriculum]
start = 2
end = 4
updates = 3
[outer]
updates = 4
batch_samples = 2
[evaluation]
tasks = 2
initialisations = 1
rate_count = 3
"""
IN_PROCESS = ["--in-process", "--workers", "1"]
FIELDS = {
    "seconds_to_first_update",
    "seconds_total",
    "tasks",
    "learned_mean",
    "baseline_mean",
    "baseline_per_task_mean",
    "ratio",
    "wins",
    "theta_sha256",
}

TIMES = {"seconds_to_first_update", "seconds_total"}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("OUTERTRAIN_RUNS", raising=False)
    monkeypatch.chdir(tmp_path)
    Path("small.toml").write_text(SMALL)
    return tmp_path


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    run_files.draw_nothing(monkeypatch)


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_train_evaluates_reports_and_prints_one_json_line(folder: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["train", "small.toml", *IN_PROCESS, "--json"]) == 0
    out, err = capsys.readouterr()
    facts = json.loads(out)
    assert out.count("\n") == 1 and facts.keys() >= FIELDS
    assert (
        facts["best"] is None and facts["tasks"] == 2 and 0 < facts["seconds_to_first_update"] < facts["seconds_total"]
    )
    assert "update 4/4" in err and "mean train loss over 2 unseen tasks" in err
    assert (folder / "runs/small/report/index.html").stat().st_size > 1000
    assert json.loads((folder / "runs/small/evaluation/summary.json").read_text()) == facts
    assert main(["status", "small", "--json"]) == 0
    state = json.loads(capsys.readouterr().out)
    assert state["state"] == "finished" and state["version"] == state["target"] == 4
    assert main(["list"]) == 0 and "small" in capsys.readouterr().out


@pytest.mark.usefixtures("undrawn")
def test_finished_run_is_evaluated_exported_and_resumed(finished: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["evaluate", "small", "--in-process", "--json"]) == 0
    of_run = json.loads(capsys.readouterr().out)
    assert main(["export", "small", "-o", "learned.py"]) == 0 and Path("learned.py").exists()
    assert main(["export", "small", "-o", "small.theta"]) == 0
    capsys.readouterr()
    assert main(["evaluate", "small.theta", "--config", "small.toml", "--in-process", "--json"]) == 0
    of_file = json.loads(capsys.readouterr().out)
    assert of_file["run"] == "small-on-small" and of_file["version"] is None
    assert {k: of_file[k] for k in FIELDS - TIMES} == {k: of_run[k] for k in FIELDS - TIMES}
    assert main(["train", "--name", "small", "--resume", "--updates", "6", *IN_PROCESS, "--no-evaluate", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["version"] == 6


@pytest.mark.usefixtures("undrawn")
def test_baselines_of_a_configuration_are_tuned(folder: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["baselines", "small.toml", "--baselines", "adam", "sgd", "--in-process"]) == 0
    rows = (folder / "runs/small-baselines/evaluation/unrolls.jsonl").read_text().splitlines()
    assert {json.loads(row)["optimizer"] for row in rows} == {"adam", "sgd"}


@pytest.mark.usefixtures("undrawn")
def test_search_writes_theta_files_that_evaluate_accepts(folder: Path, capsys: pytest.CaptureFixture) -> None:
    search = ["search", "small.toml", "--draws", "3", "--runs", "2", "--keep-all", "--in-process", "--json"]
    assert main(search) == 0
    found = json.loads(capsys.readouterr().out)
    assert found.keys() == {"train", "valid"} and found["train"]["runs"] == 2
    rows = folder / "runs/small-baselines/evaluation/search-valid-3-2-seed0.jsonl"
    assert len(rows.read_text().splitlines()) == 3
    before = rows.read_bytes()
    assert main(search) == 0 and json.loads(capsys.readouterr().out) == found and rows.read_bytes() == before
    assert main([*search, "--optimizer", "momentum6"]) == 0  # beside that of Adam
    best = json.loads(capsys.readouterr().out)["train"]["path"]
    assert Path(best).name == "momentum6-train.theta"
    assert main(["evaluate", best, "--config", "small.toml", "--tasks", "1", "--in-process", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["tasks"] == 1
    assert main(["baselines", "small.toml", "--in-process"]) == 0  # beside the search's rows in the same directory
    assert main(["report", "small-baselines"]) == 0


@pytest.mark.heavy
@pytest.mark.usefixtures("undrawn")
def test_evaluate_several_shows_one_table(folder: Path, capsys: pytest.CaptureFixture) -> None:
    for name, rate in (("slow", 0.01), ("fast", 0.05)):
        theta = np.log(np.array([rate], np.float32))
        pretrained.save(Path(f"{name}.theta"), pretrained.Pretrained(theta, OptimizerConfig(family="adam"), "by hand"))
    sgd = np.array([0.05, 0.5], np.float32)
    pretrained.save(Path("sgd.theta"), pretrained.Pretrained(sgd, OptimizerConfig(family="sgd"), "by hand"))
    (folder / "users_optimizer.py").write_text("import optax\n\n\ndef sign(rate):\n    return optax.sign_sgd(rate)\n")
    learned = ["slow.theta", "fast.theta", "sgd.theta"]
    command = [
        "evaluate",
        *learned,
        "users_optimizer:sign",
        "--config",
        "small.toml",
        "--in-process",
        "--pool",
        "--json",
    ]
    assert main(command) == 0
    out, err = capsys.readouterr()
    facts = json.loads(out)
    assert facts["optimizers"].keys() == set(learned) and facts["run"] == "comparison-on-small"
    assert facts["learned_mean"] == facts["optimizers"]["slow.theta"]["learned_mean"]
    assert "users_optimizer:sign" in facts["baselines"]
    digests = [facts["optimizers"][name]["theta_sha256"] for name in learned]
    assert len(set(digests)) == 3
    table = err[err.index("to the final train loss") :].splitlines()
    names = [line.split()[0] for line in table[2:8]]
    assert names[:4] == [*learned, "mean"] and "users_optimizer:sign" in names[4:]
    assert "mean of these 3" in err and facts["pooled"]["baselines"].keys() == facts["baselines"].keys()
    page = Path(facts["report"]).read_text()
    assert main(["report", facts["run"]]) == 0
    again = Path(capsys.readouterr().out.strip())
    assert again == Path(facts["report"])
    for name in ("fast.theta", "mean of these 3"):
        assert again.read_text().count(name) == page.count(name) > 0
    assert main(["evaluate", "sgd.theta", "--config", "small.toml", "--in-process", "--pool"]) == 2
    assert "name the runs of two seeds or more" in capsys.readouterr().err
    single = ["evaluate", "sgd.theta", "--config", "small.toml", "--in-process", "--json"]
    assert main(single) == 0
    alone = json.loads(capsys.readouterr().out)
    assert alone["learned_mean"] == facts["optimizers"]["sgd.theta"]["learned_mean"]


def test_evaluate_missing_user_optimizer_is_explained(capsys: pytest.CaptureFixture) -> None:
    assert main(["evaluate", "small-conv-train", "no_such:make", "--config", "small.toml", "--in-process"]) == 2
    assert "'no_such:make' cannot be loaded" in capsys.readouterr().err


@pytest.mark.usefixtures("undrawn")
def test_evaluate_theta_files_of_one_name_are_told_apart(folder: Path, capsys: pytest.CaptureFixture) -> None:
    def evaluate(rate: float) -> str:
        theta = np.log(np.array([rate], np.float32))
        pretrained.save(Path("my.theta"), pretrained.Pretrained(theta, OptimizerConfig(family="adam"), "by hand"))
        assert main(["evaluate", "my.theta", "--config", "small.toml", "--in-process", "--json"]) == 0
        out, err = capsys.readouterr()
        mean = f"{json.loads(out)['learned_mean']:.4f}"
        line = next(line for line in err.splitlines() if line.startswith("learned "))
        assert line.split() == ["learned", mean]
        assert mean in (folder / "runs/my-on-small/report/index.html").read_text()
        return mean

    first, second = evaluate(0.01), evaluate(0.05)
    assert first != second and evaluate(0.01) == first


@pytest.mark.parametrize(
    "command, sentence",
    [
        (["train", "nothing.toml"], "cannot read the configuration 'nothing.toml'"),
        (["train", "small.toml", "--set", "outer.updatse=3"], "unknown key outer.updatse: did you mean outer.updates?"),
        (["train", "small.toml", "--set", "outer.updates=many"], "outer.updates = 'many' has the wrong type"),
        (
            ["train", "small.toml", "--set", "curriculum.end=9"],
            "the window grows to 9 steps, longer than the inner problem",
        ),
        (
            ["train", "small.toml", "--workers", "0"],
            "workers.count = 0: must be at least 1 (no sample without a worker)",
        ),
        (["train", "small.toml", "--set", "estimator.sigma=0"], "estimator.sigma = 0 leaves es undefined"),
        (["train", "small.toml", "--name", "a/b"], "'a/b' cannot name a run"),
        (["train", "--resume"], "no run 'quickstart'"),
        (["train", "small.toml", "--set", "task.family=mine:tasks", *IN_PROCESS], "cannot be loaded"),
        (["train", "small.toml", "--set", "outer.optimizer=adma", *IN_PROCESS], "outer.optimizer"),
        (["train", "quickstart", "--set", "dataset.classes=20", *IN_PROCESS], "too few for tasks of 10"),
        (["evaluate", "nothing"], "'nothing' is not a run, an exported theta file or an included one"),
        (["evaluate", "small.toml"], "small.toml is not a usable record"),
        (
            ["evaluate", "small-conv-train", "nothing"],
            "'nothing' is not a run, an exported theta file or an included one",
        ),
        (["evaluate", "muon", "lion"], "none of these is learned"),
        (["evaluate", "small-conv-train", "small-conv-valid", "--cluster"], "and none of these is a run: add one"),
        (["evaluate", "small-conv-train", "--baselines", "adan"], "evaluation.baselines = 'adan' is not a choice"),
        (["search", "small.toml", "--draws", "0"], "--draws 0 leaves nothing to search"),
        (["baselines", "nothing"], "'nothing' is not a run, a TOML file or a preset"),
        (["report", "nothing"], "no run 'nothing'"),
        (["status", "nothing"], "no run 'nothing'"),
        (["export", "nothing", "-o", "x.py"], "no run 'nothing'"),
        (["reproduce", "fig99"], "there is no figure 'fig99'"),
        (["reproduce", "fig2", "-o", "small.toml"], "a file exists where a folder is needed"),
        (["reproduce", "fig2", "--scale", "paper"], "the paper scale needs ImageNet"),
        (["reproduce", "fig2", "--scale", "paper", "--data", "empty"], "empty is not a class store"),
        (["data", "prepare", "empty", "store"], "empty"),
        (["data", "prepare", "tfds:mnist", "store", "--size", "0"], "--size 0 is no image"),
        (["train", "small.toml", "--set", "evaluation.baselines=[]", *IN_PROCESS], "evaluation.baselines is empty"),
        (
            ["train", "small.toml", "--set", "workers.aggregate=5000", "--set", "outer.batch_samples=5000"],
            "a message holds 4096 pairs at most",
        ),
    ],
    ids=lambda value: " ".join(value[:4]) if isinstance(value, list) else "",
)
def test_main_bad_request_is_a_sentence_and_exit_code_2(
    command: list[str], sentence: str, folder: Path, capsys: pytest.CaptureFixture
) -> None:
    before = tree(folder)
    assert main(command) == 2
    out, err = capsys.readouterr()
    last = err.splitlines()[-1]
    assert last.startswith("outertrain: ") and sentence in last
    assert "Traceback" not in err and out == ""
    assert tree(folder) == before


@pytest.fixture
def finished(folder: Path, capsys: pytest.CaptureFixture) -> Path:
    assert main(["train", "small.toml", *IN_PROCESS, "--no-evaluate"]) == 0
    capsys.readouterr()
    return folder / "runs" / "small"


@pytest.mark.heavy
def test_train_unusable_run_directory_is_rejected(finished: Path, capsys: pytest.CaptureFixture) -> None:
    def rejected(sentence: str, *command: str) -> None:
        before = tree(finished)
        assert main(["train", *command, *IN_PROCESS]) == 2
        assert sentence in capsys.readouterr().err
        after = tree(finished)
        assert after.pop("log.txt").startswith(before.pop("log.txt"))  # corrupt files are named there
        assert after == before

    assert main(["logs", "small", "--lines", "-1"]) == 2
    assert "--lines -1 shows nothing" in capsys.readouterr().err
    rejected("the run 'small' exists already", "small.toml", "--name", "small")
    rejected("was trained with another [estimator]", "--name", "small", "--resume", "--set", "estimator.sigma=0.5")
    from cluster.runs.directory import EVALUATION, RunDirectory, exclusive

    with exclusive(RunDirectory(finished)):
        rejected("the run 'small' is in use by another process", "--name", "small", "--resume", "--updates", "9")
    with exclusive(RunDirectory(finished), EVALUATION):
        rejected("the run 'small' is in use by another process", "--name", "small", "--resume", "--updates", "9")
    for path in (finished / "checkpoints").iterdir():
        path.write_bytes(path.read_bytes()[:-1])
    rejected("no checkpoint of", "--name", "small", "--resume", "--updates", "9")


def test_train_taken_port_is_named(folder: Path, capsys: pytest.CaptureFixture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        before = tree(folder)
        assert main(["train", "small.toml", "--set", f"metrics.port={port}", *IN_PROCESS]) == 2
    assert f"metrics.port = {port} on 127.0.0.1 is in use" in capsys.readouterr().err
    assert tree(folder) == before


@pytest.mark.parametrize(
    "number, advice", [(errno.ENOSPC, "the disk is full: free space"), (errno.EACCES, "permission denied")]
)
def test_train_storage_without_space_or_rights_is_named(
    number: int, advice: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    before = tree(folder)
    monkeypatch.setattr(os, "fsync", refuse)
    assert main(["train", "small.toml", *IN_PROCESS]) == 2
    err = capsys.readouterr().err
    assert "cannot create the run directory" in err and advice in err and "Traceback" not in err
    assert tree(folder) == before


def test_data_prepare_corrupt_archives_are_rejected(folder: Path, capsys: pytest.CaptureFixture) -> None:
    Path("archives").mkdir()
    content = write_archives(Path("archives"), size=8, train=2, test=1)

    def rejected(sentence: str) -> None:
        before = tree(folder / "archives")
        assert main(["data", "prepare", "archives", "store"]) == 2
        err = capsys.readouterr().err
        assert sentence in err and "Traceback" not in err
        assert tree(folder / "archives") == before and not Path("store").exists()

    content.labels["test"][5] = 1000
    write_zip(Path("archives/Imagenet8_val_npz.zip"), {"val_data.npz": batch(content, "test", slice(None))})
    rejected("label 1001 is outside 1 .. 1000")
    archive = Path("archives/Imagenet8_train_npz.zip")
    archive.write_bytes(archive.read_bytes()[:-100])
    rejected("truncated, download it again")


def test_cluster_commands_without_a_cluster_say_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise ConnectionError("Could not find any running Ray instance.")

    monkeypatch.setenv("RAY_ADDRESS", "auto")
    monkeypatch.setattr("ray._private.services.canonicalize_bootstrap_address", refuse)
    monkeypatch.setattr("ray.shutdown", lambda: None)
    for command in (
        ["scale", "a", "3"],
        ["stop", "a"],
        ["launch", "small.toml", "--name", "a"],
        ["baselines", "small.toml", "--cluster"],
    ):
        assert main(command) == 2
        assert "no Ray cluster answers on this machine" in capsys.readouterr().err
    assert not Path("runs/a").exists()
