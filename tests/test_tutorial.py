"""The tutorial: its page and its notebook hold the same models, and the notebook runs.

Running it takes minutes and needs the extras `notebook` and `torch`:
pip install -e '.[test,notebook,torch]' && pytest -m extras tests/test_tutorial.py
"""

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

DOCS = Path(__file__).parent.parent / "docs"
NOTEBOOK = DOCS / "tutorial.ipynb"


def cells() -> list[str]:
    """The sources of the notebook's code cells."""
    return [
        "".join(cell["source"]) for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == "code"
    ]


def difference(cells: list[Any]) -> float:
    """The largest difference of the losses in torch and in JAX that the notebook has printed."""
    [found] = re.findall(r"largest difference of a step: (\S+?)['\"\\]", json.dumps([c.get("outputs") for c in cells]))
    return float(found)


def test_page_and_notebook_hold_the_same_models() -> None:
    written = [cell.partition("\n")[2] for cell in cells() if cell.startswith("%%writefile")]
    blocks = re.findall(r"```python\n(.*?)\n```", (DOCS / "tutorial.md").read_text(), re.DOTALL)
    assert len(written) == 3 and all(code in blocks for code in written)
    for code in written:
        compile(code, "tutorial", "exec")


def test_notebook_has_outputs_without_errors() -> None:
    outputs = [out for cell in json.loads(NOTEBOOK.read_text())["cells"] for out in cell.get("outputs", [])]
    assert outputs and not any(out["output_type"] == "error" for out in outputs)
    assert "pays for itself after" in json.dumps(outputs) and NOTEBOOK.stat().st_size < 100_000
    assert difference(json.loads(NOTEBOOK.read_text())["cells"]) < 1e-4


@pytest.mark.extras
@pytest.mark.timeout(3600)
def test_notebook_runs_and_its_optimizers_beat_adam(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import nbformat
    from nbclient import NotebookClient

    monkeypatch.setenv("PATH", f"{Path(shutil.which('outertrain') or '/').parent}:{os.environ['PATH']}")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    notebook.cells.append(nbformat.v4.new_code_cell("trained.facts['ratio'], on_table.facts['ratio']"))
    resources = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=1800, kernel_name="python3", resources=resources).execute()
    on_digits, on_table = map(float, notebook.cells[-1].outputs[0]["data"]["text/plain"].strip("()").split(","))
    assert on_digits < 1 and on_table < 1
    assert difference(notebook.cells) < 1e-4
