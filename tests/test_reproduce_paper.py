"""The paper's scale of every figure that trains or evaluates by itself: it starts on the paper's data and network,
makes its first steps, and stops when it is interrupted. Only sizes are smaller."""

import os
import signal
import threading
from pathlib import Path

import pytest
from helpers.archives import write_archives

from cluster.cli.main import main
from workers.figures import fig2, fig3, fig5, fig6, fig8, probing

SHORT = (
    "task.inner_steps=30",
    "task.units=[4, 4, 4]",  # tests/test_paper_preset.py has the paper's own
    "task.batch_size=8",
    "curriculum.start=2",
    "curriculum.end=4",
    "outer.updates=50",
    "outer.batch_samples=2",
    "workers.count=2",
)
WINDOWS = {"windows": [2, 4], "gradients": [2], "growing": (2, 4), "budget": 400, "total": 400}
pytestmark = pytest.mark.slow


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder has the paper's data where the preset looks for them, three images of each class."""
    monkeypatch.chdir(tmp_path)
    write_archives(tmp_path, size=32, train=3, test=1)
    assert main(["data", "prepare", str(tmp_path), "data/imagenet32"]) == 0
    return tmp_path


@pytest.mark.parametrize("module", [fig2, fig3, fig5, fig6, fig8, probing], ids=lambda m: m.__name__.rpartition(".")[2])
def test_figure_at_paper_scale_starts_and_is_interrupted(module, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name, key = module.__name__.rpartition(".")[2], "mlp" if module is fig2 else "base"
    scales = [(fig5, "base"), (module, key)] if module in (fig2, fig6) else [(module, key)]
    for one, where in scales:
        paper = one.SCALES["paper"]
        shorter = {name: value for name, value in WINDOWS.items() if name in paper._fields}
        shorter[where] = (*getattr(paper, where), *SHORT)
        monkeypatch.setitem(one.SCALES, "paper", paper._replace(**shorter))
    if module is fig6:
        monkeypatch.setattr(fig6, "NEEDS", ())  # its own first items, before what it needs
    ended = threading.Event()
    watcher = threading.Thread(target=interrupt_when, args=(lambda: begun(data / "out"), ended), daemon=True)
    watcher.start()
    code = main(["reproduce", name, "--scale", "paper", "--data", "data/imagenet32", "-o", "out", "--workers", "1"])
    ended.set()
    watcher.join()
    assert code == 130
    assert begun(data / "out")


def begun(folder: Path) -> bool:
    """Whether there is a result, or an outer update of a training."""
    files = [*folder.glob("*.jsonl"), *folder.glob("training/*/history.jsonl")]
    return any(file.stat().st_size > 0 for file in files)


def interrupt_when(holds, ended: threading.Event) -> None:
    """Ctrl-C as soon as something holds, unless the command has ended by itself."""
    while not holds():
        if ended.wait(0.1):
            return
    os.kill(os.getpid(), signal.SIGINT)
