"""The layout of DESIGN section 3, read from the sources: who imports whom, and how large a file and a function may be."""

import ast
import importlib.metadata
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

TOP = Path(__file__).parent.parent
ALLOWED = {  # top-level package -> top-level packages it may import
    "common": {"common"},
    "learner": {"common", "learner"},
    "workers": {"common", "workers"},
    "cluster": {"common", "learner", "workers", "cluster"},
}
CLUSTER = {  # sub-package of cluster -> sub-packages of cluster it may import
    "cli": {"cli", "launchers", "report", "jobs", "monitoring", "planning", "runs", "tracking"},
    "launchers": {"launchers", "actors", "jobs", "monitoring", "runs"},
    "actors": {"actors", "jobs", "monitoring", "runs", "tracking"},
    "jobs": {"jobs", "runs"},
    "monitoring": {"monitoring", "runs"},
    "report": {"report", "runs"},
    "planning": {"planning"},
    "runs": {"runs"},
    "tracking": {"tracking", "runs"},
    "api": {"api", "report", "runs"},
    "public": {"api"},
}
LIBRARIES = {  # library -> whether a file may import it
    "ray": lambda path: path.parts[0] == "cluster",
    "msgpack": lambda path: (
        path in (Path("common/messages.py"), Path("common/checkpoint.py"), Path("common/pretrained/flax_file.py"))
    ),
    "prometheus_client": lambda path: path.parts[:2] == ("cluster", "monitoring"),
    "tensorflow": lambda path: False,
    "pickle": lambda path: False,
    "cloudpickle": lambda path: False,
}
LINES_OF_A_FILE, LINES_OF_A_FUNCTION, ARGUMENTS = 300, 60, 6
CHARACTERS_OF_A_TEST = 60
STRING_KEYS = 100
JSON_OR_TOML = {  # modules that parse or write JSON or TOML, outside of which string keys are counted
    "common/config/identity.py",
    "common/overrides.py",
    "common/data/class_store.py",
    "common/pretrained/safetensors_file.py",
    "common/update_record.py",
    "learner/journal.py",
    "learner/lineage.py",
    "workers/evaluation/jobs.py",
    "workers/evaluation/perform.py",
    "workers/evaluation/results.py",
    "workers/evaluation/search.py",
    "workers/figures/catalogue.py",
    "workers/figures/figure.py",
}

SOURCES = sorted(path for package in ALLOWED for path in (TOP / package).rglob("*.py"))
TREES = {path: ast.parse(path.read_text()) for path in SOURCES}


def module_name(path: Path) -> str:
    parts = path.relative_to(TOP).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in SOURCES}


def imports(path: Path) -> set[str]:
    """Everything that a file imports, at its top, inside a function or for its types: `a.b` for `from a import b`."""
    names: set[str] = set()
    for node in ast.walk(TREES[path]):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, f"{path} imports relatively"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def modules(path: Path) -> set[str]:
    """Our modules that a file imports."""
    names = {name if name in MODULES else name.rpartition(".")[0] for name in imports(path)}
    return names & MODULES.keys()


def functions() -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{path.relative_to(TOP)}:{node.name}", node


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(TOP)))
def test_imports_of_each_file_follow_the_package_graph(path: Path) -> None:
    file = path.relative_to(TOP)
    found = imports(path)
    tops = {name.split(".")[0] for name in found}
    assert tops & ALLOWED.keys() <= ALLOWED[file.parts[0]]
    for library, allowed in LIBRARIES.items():
        assert library not in tops or allowed(file), f"{file} imports {library}"
    if file.parts[0] == "cluster" and len(file.parts) > 2:
        inner = {name.split(".")[1] for name in modules(path) if name.startswith("cluster.")}
        assert inner <= CLUSTER[file.parts[1]], f"{file} imports {inner - CLUSTER[file.parts[1]]}"


def test_imports_form_no_cycle() -> None:
    graph = {name: modules(path) for name, path in MODULES.items()}
    done: set[str] = set()
    cycles: set[str] = set()

    def visit(name: str, above: tuple[str, ...]) -> None:
        if name in above:
            cycles.add(" -> ".join((*above[above.index(name) :], name)))
        elif name not in done:
            for child in sorted(graph[name]):
                visit(child, (*above, name))
            done.add(name)

    for name in sorted(graph):
        visit(name, ())
    assert cycles == set()


def test_cluster_holds_packages_only() -> None:
    assert [path.name for path in (TOP / "cluster").glob("*.py")] == ["__init__.py"]
    assert {path.name for path in (TOP / "cluster").iterdir() if any(path.rglob("*.py"))} == CLUSTER.keys()


def test_files_are_at_most_300_lines() -> None:
    lengths = {str(path.relative_to(TOP)): len(path.read_text().splitlines()) for path in SOURCES}
    assert {path for path, length in lengths.items() if length > LINES_OF_A_FILE} == set()


def test_functions_are_at_most_60_lines() -> None:
    assert {name for name, node in functions() if node.end_lineno - node.lineno >= LINES_OF_A_FUNCTION} == set()  # type: ignore[operator]


def test_names_of_tests_are_at_most_60_characters() -> None:
    names = {
        node.name
        for path in (TOP / "tests").glob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }
    assert {name for name in names if len(name) > CHARACTERS_OF_A_TEST} == set()


def test_functions_take_at_most_six_arguments() -> None:
    def count(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
        arguments = node.args
        every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
        return len([argument for argument in every if argument.arg not in ("self", "cls")])

    assert {f"{name}: {count(node)} arguments" for name, node in functions() if count(node) > ARGUMENTS} == set()


def test_records_are_not_read_by_string_keys() -> None:
    """Dictionaries are for JSON, TOML and metric labels; everything else takes a record of a named type."""
    counts = {
        str(path.relative_to(TOP)): sum(
            isinstance(node, ast.Subscript) and isinstance(getattr(node.slice, "value", None), str)
            for node in ast.walk(tree)
        )
        for path, tree in TREES.items()
    }
    assert all(counts[path] for path in JSON_OR_TOML)  # a module that has no more leaves the list
    assert sum(count for path, count in counts.items() if path not in JSON_OR_TOML) < STRING_KEYS


def test_no_other_distribution_owns_our_package_names() -> None:
    owners = importlib.metadata.packages_distributions()
    for package in ALLOWED:
        assert set(owners.get(package, ["outertrain"])) == {"outertrain"}


def test_the_top_level_is_what_the_user_fixed() -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=TOP, capture_output=True, text=True, check=True).stdout.split(
        "\n"
    )
    top = {name.split("/")[0] for name in tracked if name and not name.startswith(".")}
    assert top <= {*ALLOWED, "deploy", "tests", "docs", "pyproject.toml", "README.md", "LICENSE"}


@pytest.mark.parametrize(
    "module", ["cluster.cli.main", "cluster.actors.worker_program", "cluster.actors.worker_loop", "common.runtime"]
)
def test_modules_on_the_start_path_load_no_jax_or_ray(module: str) -> None:
    code = f"import sys, {module}; print(sorted({{'jax', 'ray', 'numpy', 'rich'}} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"
