"""The rules of the layout, read from the sources: which room imports what, and that our package names are ours."""

import ast
import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).parent.parent
ALLOWED = {
    "common": {"common"},
    "learner": {"common", "learner"},
    "workers": {"common", "workers"},
    "cluster": {"common", "learner", "workers", "cluster"},
}
SOURCES = sorted(path for room in ALLOWED for path in (TOP / room).rglob("*.py"))
KEPT = {  # libraries that only some files may import
    "ray": lambda path: path.parts[0] == "cluster",
    "msgpack": lambda path: path in (Path("common/messages.py"), Path("common/checkpoint.py")),
    "prometheus_client": lambda path: path == Path("cluster/monitoring/metrics.py"),
    "tensorflow": lambda path: False,
    "pickle": lambda path: False,
    "cloudpickle": lambda path: False,
}


def imports(path: Path) -> set[str]:
    """Top-level names of everything that a file imports, at its top or inside a function."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively: a file has one import name, which is its path"
            names.add((node.module or "").split(".")[0])
    return names


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(TOP)))
def test_imports_go_one_way(path: Path) -> None:
    name = path.relative_to(TOP)
    found = imports(path)
    assert found & set(ALLOWED) <= ALLOWED[name.parts[0]]
    for library, may in KEPT.items():
        assert library not in found or may(name), f"{name} imports {library}"


def test_there_is_no_import_cycle() -> None:
    graph = {module_name(path): modules(path) for path in SOURCES}
    done: set[str] = set()

    def visit(name: str, above: tuple[str, ...]) -> None:
        assert name not in above, " -> ".join((*above, name))
        if name not in done:
            for child in graph.get(name, ()):
                visit(child, (*above, name))
            done.add(name)

    for name in graph:
        visit(name, ())


def module_name(path: Path) -> str:
    parts = path.relative_to(TOP).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


KNOWN = {module_name(path) for path in SOURCES}


def modules(path: Path) -> set[str]:
    """Our modules that a file imports when it is imported itself, types apart."""
    names: set[str] = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {
                f"{node.module}.{a.name}" if f"{node.module}.{a.name}" in KNOWN else node.module for a in node.names
            }
    return {name for name in names if name.split(".")[0] in ALLOWED}


def test_no_other_distribution_owns_our_names() -> None:
    owners = importlib.metadata.packages_distributions()
    for room in ALLOWED:
        assert set(owners.get(room, ["outertrain"])) == {"outertrain"}


def test_the_top_level_is_what_the_user_fixed() -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=TOP, capture_output=True, text=True, check=True).stdout.split(
        "\n"
    )
    top = {name.split("/")[0] for name in tracked if name and not name.startswith(".")}
    assert top <= {*ALLOWED, "deploy", "tests", "docs", "pyproject.toml", "README.md", "LICENSE"}


@pytest.mark.parametrize(
    "module", ["cluster.cli.main", "cluster.actors.worker_program", "cluster.actors.worker_loop", "common.runtime"]
)
def test_what_must_start_at_once_imports_neither_jax_nor_ray(module: str) -> None:
    code = f"import sys, {module}; print(sorted({{'jax', 'ray', 'numpy', 'rich'}} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"
