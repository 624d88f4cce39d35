"""Theta as safetensors with a model card, and thetas of other projects that flax has serialized."""

import json
import struct
from pathlib import Path

import jax
import msgpack
import numpy as np
import pytest

from cluster.cli.export import write_hub_folder
from cluster.report.export import write
from cluster.runs.learned import find
from common import pretrained
from common.config import OptimizerConfig
from common.errors import UserError
from common.optimizer import make_family
from common.pretrained import Pretrained, safetensors_file

FAMILIES = ("mlp", "sgd", "mlp_lopt", "adafactor_mlp", "celo2", "mlp_muon")
ORIGIN = 'quotes """ \' and\n---\nlicense: none {x} \u202e'


def learned(family: str) -> Pretrained:
    config = OptimizerConfig(family=family)
    theta = np.random.default_rng(0).normal(size=make_family(config).size).astype(np.float32)
    return Pretrained(theta, config, ORIGIN)


@pytest.mark.parametrize("family", FAMILIES)
def test_safetensors_file_returns_what_was_written(tmp_path: Path, family: str) -> None:
    given = learned(family)
    write(given, tmp_path / "a.safetensors")
    found = find(str(tmp_path / "a.safetensors"))
    np.testing.assert_array_equal(found.theta, given.theta)
    assert found[1:] == given[1:]


def test_safetensors_names_the_tensors_of_theta() -> None:
    layout = make_family(OptimizerConfig(family="adafactor_mlp")).layout
    names = safetensors_file.tensor_names(layout)
    assert names[:5] == ["values.0", "values.1", "values.2", "layers.0.kernel", "layers.0.bias"]
    assert len(set(names)) == len(layout) == 9


def test_hub_folder_has_a_card_and_is_read_back(tmp_path: Path) -> None:
    given, folder = learned("celo2"), tmp_path / "mine"
    write_hub_folder(given, folder, "mine", "optax")
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "model.safetensors"]
    card = (folder / "README.md").read_text(encoding="utf-8")
    head, _, body = card.removeprefix("---\n").partition("\n---\n")
    assert "library_name: outertrain" in head and "license" not in head
    assert "# mine" in body and "347 parameters" in body and card.isascii() and "\nlicense" not in body
    path = pretrained.find(str(folder))
    assert path is not None and pretrained.title(path) == "mine"
    found = find(str(folder))
    np.testing.assert_array_equal(found.theta, given.theta)
    assert found[1:] == given[1:]


@pytest.mark.parametrize("name", ["x.py", "x.safetensors"])
def test_hub_folder_that_is_a_file_name_is_rejected(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="name a folder with -o"):
        write_hub_folder(learned("sgd"), tmp_path / name, "mine", "optax")


def header(path: Path, change: dict) -> bytes:
    """The file with another header."""
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    text = json.dumps(json.loads(data[8 : 8 + size]) | change).encode()
    return struct.pack("<Q", len(text)) + text + data[8 + size :]


@pytest.mark.parametrize(
    "metadata, sentence",
    [
        ({}, "does not say which optimizer"),
        ({"outertrain": "{"}, "does not say which optimizer"),
        ({"outertrain": "[" * 100000}, "does not say which optimizer"),
        ({"outertrain": json.dumps({"optimizer": "sgd", "origin": ""})}, "does not say which optimizer"),
        ({"outertrain": json.dumps({"optimizer": {"family": "sgd"}, "origin": 3})}, "does not say which optimizer"),
        ({"outertrain": json.dumps({"optimizer": {"family": "exec"}, "origin": ""})}, "optimizer.family"),
        ({"outertrain": json.dumps({"optimizer": {"family": "mlp"}, "origin": ""})}, "does not hold the tensors"),
        ({"outertrain": json.dumps({"optimizer": {"hidden": 10**15}, "origin": ""})}, "does not hold the tensors"),
    ],
)
def test_hostile_metadata_is_answered_by_a_sentence(tmp_path: Path, metadata: dict, sentence: str) -> None:
    path = tmp_path / "a.safetensors"
    write(learned("sgd"), path)
    path.write_bytes(header(path, {"__metadata__": metadata}))
    with pytest.raises(UserError, match=sentence):
        find(str(path))


def test_tensor_of_another_dtype_or_shape_is_rejected(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    write(learned("sgd"), path)
    good = path.read_bytes()
    for change, sentence in (
        (
            {"dtype": "I32", "shape": [2], "data_offsets": [0, 8]},
            r"is int32 \[2\], and its optimizer needs float32 \[2\]",
        ),
        ({"dtype": "F32", "shape": [2, 1], "data_offsets": [0, 8]}, r"float32 \[2, 1\], and its optimizer needs"),
        ({"dtype": "F32", "shape": [10**12], "data_offsets": [0, 8]}, "is not a usable safetensors file"),
    ):
        path.write_bytes(good)
        path.write_bytes(header(path, {"values.0": change}))
        with pytest.raises(UserError, match=sentence):
            find(str(path))


def test_corrupt_or_large_safetensors_are_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.safetensors"
    write(learned("sgd"), path)
    good = path.read_bytes()
    for bad in (b"", good[:20], good[:-1], b"\xff" * 8 + good[8:], good + b"x", good[:-4] + b"\0\0\xc0\x7f"):
        path.write_bytes(bad)
        with pytest.raises(UserError, match=r"not a usable safetensors file|numbers that are not finite"):
            find(str(path))
    monkeypatch.setattr(safetensors_file, "MOST_BYTES", 100)
    path.write_bytes(good)
    with pytest.raises(UserError, match="no theta is that large"):
        find(str(path))


def array(*shape: int, seed: int = 0, dtype: str = "float32") -> msgpack.ExtType:
    """As flax writes an array."""
    values = np.random.default_rng(sum(shape) + seed).normal(size=shape).astype(dtype)
    return msgpack.ExtType(1, msgpack.packb((shape, dtype, values.tobytes())))


def celo2(hidden: int = 8) -> dict:
    rows = (1, 1, 1, 3, 1, 3, 1, 3, 1, 3, 3, 3, 3, 3)
    stack = {f"w0__{k}": array(n, hidden, seed=k) for k, n in enumerate(rows)}
    stack |= {"w1": array(hidden, hidden), "w2": array(hidden, 3)}
    return {"ff_mod_stack": {"~": {**stack, "b0": array(hidden), "b1": array(hidden), "b2": array(3)}}}


def adafactor(hidden: int = 32) -> dict:
    nn = {"w0": array(39, hidden), "w1": array(hidden, hidden), "w2": array(hidden, 2)}
    nn |= {"b0": array(hidden), "b1": array(hidden), "b2": array(2)}
    decays = {"momentum_decays": array(3), "rms_decays": array(1), "adafactor_decays": array(3, seed=1)}
    return {**decays, "nn": {"~": nn}}


def mlp_lopt(hidden: int = 32) -> dict:
    sizes = [(19, hidden), (hidden, hidden), (hidden, 2)]
    return {f"mlp/~/linear_{k}": {"w": array(n, m), "b": array(m)} for k, (n, m) in enumerate(sizes)}


def numbers(leaf: msgpack.ExtType) -> np.ndarray:
    return np.frombuffer(msgpack.unpackb(leaf.data)[2], "<f4")


@pytest.mark.parametrize(
    "tree, config, parts",
    [
        (
            celo2(),
            OptimizerConfig(family="celo2", layers=(8, 8)),
            lambda t: [
                *(
                    t["ff_mod_stack"]["~"][name]
                    for name in (*(f"w0__{k}" for k in range(14)), "b0", "w1", "b1", "w2", "b2")
                )
            ],
        ),
        (
            adafactor(),
            OptimizerConfig(family="adafactor_mlp", layers=(32, 32)),
            lambda t: [
                *(t[f"{name}_decays"] for name in ("momentum", "rms", "adafactor")),
                *(t["nn"]["~"][name] for name in ("w0", "b0", "w1", "b1", "w2", "b2")),
            ],
        ),
        (
            mlp_lopt(),
            OptimizerConfig(family="mlp_lopt", layers=(32, 32)),
            lambda t: [t[f"mlp/~/linear_{k}"][name] for k in range(3) for name in "wb"],
        ),
    ],
    ids=["Celo2", "AdafacMLPLOpt", "MLPLOpt"],
)
def test_theta_of_flax_is_read_in_our_order(tmp_path: Path, tree: dict, config: OptimizerConfig, parts) -> None:
    want = np.concatenate([numbers(leaf) for leaf in parts(tree)])
    for k, content in enumerate((tree, {"params": tree, "gen_id": "a", "step": 3})):
        path = tmp_path / f"other{k}.state"
        path.write_bytes(msgpack.packb(content))
        found = find(str(path))
        np.testing.assert_array_equal(found.theta, want)
        assert found.optimizer == config and "other" in found.origin
    transform = make_family(config).transform(want)
    w = {"a": np.ones((2, 3), np.float32)}
    assert jax.eval_shape(transform.update, w, jax.eval_shape(transform.init, w), w)[0]["a"].shape == (2, 3)


def changed(tree: dict, *path: str, to: object) -> dict:
    head, *rest = path
    return {**tree, head: changed(tree[head], *rest, to=to) if rest else to}


@pytest.mark.parametrize(
    "tree, sentence",
    [
        ({**celo2(), "lstm_init_state": {"hidden": array(1, 64)}}, "theta of Celo or VeLO"),
        ({"x": 1}, "no theta that outertrain knows"),
        (changed(celo2(), "ff_mod_stack", "~", "w1", to=array(8, 9)), "no theta that outertrain knows"),
        (changed(celo2(), "ff_mod_stack", "~", "w0__3", to=array(2, 8)), "no theta that outertrain knows"),
        (changed(adafactor(), "rms_decays", to=array(2)), "no theta that outertrain knows"),
        (changed(mlp_lopt(), "mlp/~/linear_0", "b", to=array()), "no theta that outertrain knows"),
        (changed(adafactor(), "nn", "~", "w0", to=array(39, 32, dtype="float64")), "no theta that outertrain knows"),
        (
            changed(
                mlp_lopt(), "mlp/~/linear_0", "b", to=msgpack.ExtType(1, msgpack.packb(((10**12,), "float32", b"")))
            ),
            "bytes do not match its shape",
        ),
        (
            changed(mlp_lopt(), "mlp/~/linear_0", "b", to=msgpack.ExtType(1, b"\xc1")),
            "cannot be read as a theta of flax",
        ),
    ],
)
def test_other_theta_of_flax_is_answered_by_a_sentence(tmp_path: Path, tree: dict, sentence: str) -> None:
    path = tmp_path / "other.state"
    path.write_bytes(msgpack.packb(tree))
    with pytest.raises(UserError, match=sentence):
        find(str(path))


def test_truncated_theta_of_flax_is_rejected(tmp_path: Path) -> None:
    path = tmp_path / "other.state"
    path.write_bytes(msgpack.packb(celo2())[:-5])
    with pytest.raises(UserError, match="cannot be read as a theta of flax"):
        find(str(path))
