"""`outertrain config`: every key with type, default, bounds, meaning and cost."""

import json
from dataclasses import asdict

import pytest

from cluster.cli.main import main
from common.config import Config
from common.configfile import load


def test_config_json_lists_every_key_with_its_default(capsys: pytest.CaptureFixture) -> None:
    assert main(["config", "--json"]) == 0
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    listed = {key["key"]: key["default"] for key in json.loads(out)}
    tree = json.loads(json.dumps(asdict(Config())))
    sections = [name for name in tree if name not in ("seed", "mixture")]
    expected = {f"{name}.{key}": value for name in sections for key, value in tree[name].items()}
    assert listed == {"seed": 0, **expected}


def test_config_section_prints_that_section(capsys: pytest.CaptureFixture) -> None:
    assert main(["config", "estimator"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("[estimator]  The two gradient estimators and their merge (section 3).")
    assert 'estimator.merge = "scalar"    str, coordinate | tensor | scalar' in out
    assert "estimator.probe_rate = 1.0    float, more than 0 and at most 1" in out
    assert "Cost: coordinate needs batches of 32 pairs" in out and "outer.updates" not in out


def test_config_explains_the_keys_of_a_mixture(capsys: pytest.CaptureFixture) -> None:
    assert main(["config", "mixture"]) == 0
    out = capsys.readouterr().out
    assert "mixture.weight = 1.0    float, more than 0" in out and "mixture.task" not in out


def test_config_printed_defaults_can_be_set(capsys: pytest.CaptureFixture) -> None:
    main(["config"])
    lines = [line.split("    ")[0] for line in capsys.readouterr().out.splitlines() if line and line[0].islower()]
    overrides = [line.replace(" = ", "=", 1) for line in lines]
    preset = load("quickstart")
    assert load("quickstart", overrides) == Config() != preset


def test_config_unknown_section_names_the_sections(capsys: pytest.CaptureFixture) -> None:
    assert main(["config", "outter"]) == 2
    assert "has no section 'outter': choose from task, dataset" in capsys.readouterr().err
