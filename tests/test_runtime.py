"""The environment of a computing process: its variables, and its cache of compiled functions."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from common import runtime


def test_prepare_keeps_the_users_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {"OMP_NUM_THREADS": "7", "OUTERTRAIN_CACHE": "/somewhere"})
    assert runtime.prepare(pin=False) is None
    assert os.environ["OMP_NUM_THREADS"] == "7" and os.environ["JAX_PLATFORMS"] == "cpu"
    assert os.environ["JAX_COMPILATION_CACHE_DIR"] == "/somewhere/xla"


@pytest.mark.heavy
def test_prepare_fixes_what_changes_numbers() -> None:
    """The same product and random numbers, whatever a shell says: seen in a process of its own."""
    program = (
        "from common import runtime; runtime.prepare(pin=False)\n"
        "import jax, os; key = jax.random.key(3)\n"
        "x = jax.random.normal(key, (5, 5)); print(jax.devices()[0].platform, x.dtype, x.tobytes().hex())\n"
        "y = jax.jit(lambda x: x @ x / 0.3)(x); print(y.dtype, y.tobytes().hex(), os.environ['XLA_FLAGS'])"
    )
    hostile = {
        "JAX_PLATFORMS": "cuda",
        "JAX_ENABLE_X64": "1",
        "JAX_DISABLE_JIT": "1",
        "JAX_DEFAULT_PRNG_IMPL": "rbg",
        "JAX_THREEFRY_PARTITIONABLE": "0",
        "JAX_RANDOM_SEED_OFFSET": "7",
        "JAX_DEFAULT_MATMUL_PRECISION": "bfloat16",
        "XLA_FLAGS": "--xla_cpu_enable_fast_math=true",
    }
    outputs = [
        subprocess.run(
            [sys.executable, "-c", program], env={**os.environ, **e}, check=True, stdout=subprocess.PIPE
        ).stdout
        for e in ({"XLA_FLAGS": ""}, hostile)
    ]
    assert outputs[0] == outputs[1]


def test_xla_flags_keeps_the_users_other_flags_before_ours() -> None:
    assert runtime.xla_flags("") == runtime.FLAGS == runtime.xla_flags(runtime.FLAGS)
    given = "--xla_dump_to=/a --xla_allow_excess_precision=false --xla_cpu_use_onednn=true --xla_gpu_autotune_level=0"
    assert runtime.xla_flags(given) == f"--xla_dump_to=/a --xla_gpu_autotune_level=0 {runtime.FLAGS}"


@pytest.mark.parametrize("value, quick", [("1", True), ("On", True), ("0", False), ("", False), (None, False)])
def test_prepare_compiles_faster_only_where_asked(
    value: str | None, quick: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {} if value is None else {"JAX_DISABLE_MOST_OPTIMIZATIONS": value}
    users = {"XLA_FLAGS": f"{runtime.QUICK_FLAGS} --xla_dump_to=/a", "OUTERTRAIN_CACHE": "/somewhere"}
    monkeypatch.setattr(os, "environ", {**users, **asked})
    for _ in range(2):
        runtime.prepare(pin=False)
        ours = f"{runtime.QUICK_FLAGS} {runtime.FLAGS}" if quick else runtime.FLAGS
        assert os.environ["XLA_FLAGS"] == f"--xla_dump_to=/a {ours}"


def test_xla_flags_reads_the_file_that_is_named(tmp_path: Path) -> None:
    (tmp_path / "flags").write_text("--xla_dump_to=/a\n--xla_cpu_enable_fast_math=true\n")
    assert runtime.xla_flags(str(tmp_path / "flags")) == f"--xla_dump_to=/a {runtime.FLAGS}"
    assert runtime.xla_flags(str(tmp_path / "none")) == runtime.FLAGS


OPTIONS = "import json; from jax._src import config; print(json.dumps(config.config.values, default=str))"


@pytest.mark.heavy
def test_prepare_leaves_every_option_of_jax_at_its_default() -> None:
    """Each option that the installed JAX declares, with another value in the environment that JAX itself takes."""

    def values(environment: Mapping[str, str], preamble: str) -> dict[str, Any]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
        command = [sys.executable, "-c", preamble + OPTIONS]
        done = subprocess.run(command, env={**clean, **environment}, check=True, stdout=subprocess.PIPE)
        return json.loads(done.stdout)

    defaults = values({}, "")
    hostile = {name.upper(): str(int(not value)) for name, value in defaults.items() if isinstance(value, bool)}
    hostile |= {name.upper(): str(value + 1) for name, value in defaults.items() if type(value) in (int, float)}
    hostile |= {"JAX_NUMPY_DTYPE_PROMOTION": "strict", "JAX_NUMPY_RANK_PROMOTION": "raise", "JAX_PLATFORM_NAME": "gpu"}
    hostile |= {
        "JAX_TRANSFER_GUARD": "disallow",
        "JAX_LEGACY_PRNG_KEY": "error",
        "JAX_DEFAULT_MATMUL_PRECISION": "bfloat16",
    }
    prepared = values(hostile, "from common import runtime; runtime.prepare(pin=False)\n")
    changed = {name.upper() for name in defaults if prepared[name] != defaults[name]}
    assert "JAX_ENABLE_X64" in hostile and len(hostile) > 60
    assert {name for name in changed if not runtime.KEPT_OPTIONS.fullmatch(name)} == {"JAX_PLATFORMS"}


SHARING = """
import sys, time
from common import runtime
def slow(name):
    print(name, flush=True)
    sys.stdin.readline()
runtime.compile_in_turn({name: lambda name=name: slow(name) for name in ("a", "b", "c")})
"""


def test_compile_in_turn_processes_begin_with_different_ones(tmp_path: Path) -> None:
    def start() -> subprocess.Popen:
        environment = {**os.environ, "OUTERTRAIN_CACHE": str(tmp_path)}
        return subprocess.Popen(
            [sys.executable, "-c", SHARING],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            bufsize=1,
        )

    def finish_one(process: subprocess.Popen) -> str:
        process.stdin.write("\n")
        return process.stdout.readline().strip()

    first = start()
    assert first.stdout.readline() == "a\n"
    second = start()
    assert second.stdout.readline() == "b\n"
    assert finish_one(first) == "c"
    assert finish_one(second) == "a"
    assert finish_one(first) == "b"
    assert finish_one(second) == "c"
    for process in (first, second):
        process.communicate("\n")
        assert process.returncode == 0


def cached(folder: Path, name: str, size: int, used: int) -> Path:
    path = folder / f"{name}-cache"
    path.write_bytes(bytes(size))
    os.utime(path, (used, used))
    return path


def test_prune_cache_deletes_what_was_used_longest_ago(tmp_path: Path) -> None:
    paths = [cached(tmp_path, str(used), 100, used) for used in (5, 1, 3, 2, 4)]
    other = tmp_path / "notes"
    other.write_bytes(bytes(1000))
    runtime.prune_cache(tmp_path, most=499)
    assert [path.stem for path in paths if path.exists()] == ["5-cache", "3-cache", "4-cache"] and other.exists()


def test_prune_cache_within_the_bound_deletes_nothing(tmp_path: Path) -> None:
    cached(tmp_path, "a", 100, 1)
    runtime.prune_cache(tmp_path, most=100)
    runtime.prune_cache(tmp_path / "missing", most=100)
    assert (tmp_path / "a-cache").exists()


@pytest.mark.parametrize("bound, kept", [(None, False), ("-1", True)])
def test_prepare_bounds_the_cache_unless_jax_does(tmp_path: Path, bound: str | None, kept: bool) -> None:
    (tmp_path / "xla").mkdir()
    path = cached(tmp_path / "xla", "a", 100, 1)
    program = "from common import runtime; runtime.CACHE_BYTES = 99\nruntime.prepare(pin=False)"
    environment = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_MAX_SIZE"}
    environment |= {runtime.CACHE_VARIABLE: str(tmp_path)} | (
        {} if bound is None else {"JAX_COMPILATION_CACHE_MAX_SIZE": bound}
    )
    subprocess.run([sys.executable, "-c", program], env=environment, check=True)
    assert path.exists() == kept


def test_compile_in_turn_without_locks_compiles_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a file").write_text("")
    monkeypatch.setenv(runtime.CACHE_VARIABLE, str(tmp_path / "a file"))
    done: list[str] = []
    runtime.compile_in_turn({name: lambda name=name: done.append(name) for name in ("a", "b")})  # type: ignore[misc]
    assert done == ["a", "b"]
