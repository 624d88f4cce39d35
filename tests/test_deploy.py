"""The files in deploy/ are valid, and consistent with the code and each other. test_monitoring.py runs them."""

import copy
import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from cluster.monitoring.fleet_metrics import FleetMetrics
from cluster.monitoring.metrics import LearnerMetrics
from cluster.monitoring.targets import FOLDER_VARIABLE

ROOT = Path(__file__).resolve().parents[1]
DEPLOY = ROOT / "deploy"
MONITORING = DEPLOY / "monitoring"
DASHBOARDS = sorted((MONITORING / "grafana" / "dashboards").glob("*.json"))
CLUSTERS = sorted((DEPLOY / "ray").glob("*.yaml"))
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))


def read_yaml(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def rules() -> list[dict[str, Any]]:
    files = [MONITORING / name for name in read_yaml(MONITORING / "prometheus.yml")["rule_files"]]
    return [rule for path in files for group in read_yaml(path)["groups"] for rule in group["rules"]]


def alerts() -> list[dict[str, Any]]:
    return [rule for rule in rules() if "alert" in rule]


def panels() -> Iterator[tuple[Path, dict[str, Any]]]:
    for path in DASHBOARDS:
        for panel in json.loads(path.read_text())["panels"]:
            yield path, panel


def expressions() -> Iterator[str]:
    """Every expression in rules and dashboards."""
    yield from (rule["expr"] for rule in rules())
    yield from (target["expr"] for _, panel in panels() for target in panel.get("targets", ()))


def published() -> set[str]:
    """Names of the series that learner and fleet manager publish, and of those that rules record."""
    names = {rule["record"] for rule in rules() if "record" in rule}
    for metrics in (LearnerMetrics(), FleetMetrics()):
        for family in metrics.registry.collect():
            suffixes = {
                "counter": ["_total"],
                "histogram": ["_bucket", "_sum", "_count"],
                "summary": ["_sum", "_count"],
            }
            names |= {
                family.name + suffix for suffix in suffixes.get(family.type, ["_info" if family.type == "info" else ""])
            }
    return names


def test_every_queried_metric_is_published_by_us_or_ray() -> None:
    asked = {
        name for expr in expressions() for name in re.findall(r"\b(?:run[\w]*:)?outertrain_[\w:]+|\bprocess_\w+", expr)
    }
    assert len(asked) > 40
    assert asked - published() == set()
    rays = {name for expr in expressions() for name in re.findall(r"\bray_\w+", expr)}
    [keep] = read_yaml(MONITORING / "prometheus.yml")["scrape_configs"][1]["metric_relabel_configs"]
    assert all(re.fullmatch(keep["regex"], name) for name in rays) and len(rays) > 4


def test_every_published_metric_is_queried_somewhere() -> None:
    text = " ".join(expressions())
    unseen = {
        n for n in published() if n.startswith("outertrain_") and re.sub(r"_(bucket|sum|count)$", "", n) not in text
    }
    unseen -= {"outertrain_build_info", "outertrain_checkpoint_bytes", "outertrain_checkpoint_bytes_count"}
    assert unseen == set()


def test_every_alert_has_summary_description_action_dashboard() -> None:
    uids = {json.loads(p.read_text())["uid"]: {panel["id"] for q, panel in panels() if q == p} for p in DASHBOARDS}
    for alert in alerts():
        notes = alert["annotations"]
        assert alert["labels"]["severity"] in ("critical", "warning", "info")
        assert set(notes) == {"summary", "description", "action", "dashboard"}, alert["alert"]
        assert notes["summary"].startswith("{{ $labels.run }}: ")
        link = re.fullmatch(
            r"/d/([\w-]+)\?var-run=\{\{ \$labels.run \| urlquery \}\}(?:&viewPanel=(\d+))?", notes["dashboard"]
        )
        assert link is not None and link[1] in uids, alert["alert"]
        assert link[2] is None or int(link[2]) in uids[link[1]], alert["alert"]


def test_every_alert_has_firing_and_silent_rule_tests() -> None:
    tests = read_yaml(MONITORING / "rules" / "tests" / "alerts_test.yml")["tests"]
    for alert in alerts():
        name = alert["alert"]
        [found] = [
            (t, q) for t in tests for q in t["promql_expr_test"] if f'"{name}"' in q["expr"] and q["exp_samples"]
        ]
        test, asked = found
        runs = {re.search(r'run="([^"]+)"', series["series"])[1] for series in test["input_series"]}  # type: ignore[index]
        fires = {re.search(r'run="([^"]+)"', sample["labels"])[1] for sample in asked["exp_samples"]}  # type: ignore[index]
        assert fires and fires < runs, name
        assert fires == {run for run in runs if run.startswith("bad")}, name


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda p: p.stem)
def test_dashboard_panels_are_complete_and_do_not_overlap(path: Path) -> None:
    board = json.loads(path.read_text())
    ids = [panel["id"] for panel in board["panels"]]
    assert len(ids) == len(set(ids)) and board["uid"] == f"outertrain-{path.stem}" and board["schemaVersion"] >= 39
    names = {variable["name"] for variable in board["templating"]["list"]}
    assert {"datasource", "run"} <= names
    cells: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        assert panel["title"] and panel["type"] in ("timeseries", "stat", "heatmap", "alertlist")
        at = panel["gridPos"]
        area = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not area & cells and at["x"] + at["w"] <= 24, panel["title"]
        cells |= area
        for target in panel.get("targets", ()):
            assert target["datasource"]["uid"] == "${datasource}"
            assert set(re.findall(r"\$(\w+)", target["expr"])) <= names
            assert target["expr"].count("(") == target["expr"].count(")")
        if panel["type"] == "timeseries":
            assert panel["fieldConfig"]["defaults"]["unit"] and panel["fieldConfig"]["defaults"]["custom"]["axisLabel"]
        if panel["type"] == "heatmap":
            assert panel["options"]["yAxis"]["axisLabel"]
    assert re.search(r"https?://|localhost|127\.0\.0\.1", path.read_text()) is None


def test_dashboard_uids_are_unique_and_provisioned() -> None:
    uids = [json.loads(path.read_text())["uid"] for path in DASHBOARDS]
    assert len(set(uids)) == len(uids) == 3
    [provider] = read_yaml(MONITORING / "grafana/provisioning/dashboards/outertrain.yml")["providers"]
    grafana = read_yaml(MONITORING / "compose.yaml")["services"]["grafana"]
    assert f"./grafana/dashboards:{provider['options']['path']}:ro" in grafana["volumes"]
    [source] = read_yaml(MONITORING / "grafana/provisioning/datasources/prometheus.yml")["datasources"]
    for path in DASHBOARDS:
        current = json.loads(path.read_text())["templating"]["list"][0]["current"]
        assert current["value"] == source["uid"]


def test_compose_services_bind_loopback_and_mount_existing_paths() -> None:
    composition = read_yaml(MONITORING / "compose.yaml")
    services, volumes = composition["services"], composition["volumes"]
    for name, service in services.items():
        listening = " ".join(service.get("command", [])) + str(service.get("environment", ""))
        assert "127.0.0.1" in listening and "0.0.0.0" not in listening, name
        assert re.fullmatch(r"[\w./-]+:v?\d+\.\d+\.\d+", service["image"]), name
        for volume in service["volumes"]:
            source = volume.split(":")[0]
            if source.startswith("."):
                assert (MONITORING / source).exists(), volume
            else:  # Docker creates a missing folder as root, and Ray could then not write to /tmp/ray
                assert source in ("/tmp", *volumes), volume


@pytest.mark.parametrize("path", CLUSTERS, ids=lambda p: p.stem)
def test_cluster_file_passes_ray_validation(path: Path) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = read_yaml(path)
    prepared = prepare_config(copy.deepcopy(config))
    validate_config(prepared)
    commands = "\n".join(prepared["head_start_ray_commands"] + prepared["worker_start_ray_commands"])
    assert "--num-cpus=0" in commands and "--dashboard-host=127.0.0.1" in commands and "0.0.0.0" not in commands
    assert all(". ~/outertrain/deploy/ray/env.sh" in command for command in commands.splitlines())
    assert "deploy/constraints.txt" in " ".join(prepared["setup_commands"])
    for source in config["file_mounts"].values():
        assert source.startswith("~") or source == "dist" or (ROOT / source).exists()


def test_every_deployment_sets_rays_variables() -> None:
    shell = dict(re.findall(r"^\s*export (\w+)=(\S+)", (DEPLOY / "ray/env.sh").read_text(), re.MULTILINE))
    units = dict(re.findall(r"^(\w+)=(.*)$", (DEPLOY / "systemd/env").read_text(), re.MULTILINE))
    image = dict(re.findall(r"(RAY_\w+)=(\S+)", (DEPLOY / "Dockerfile").read_text()))
    batch = dict(re.findall(r"^export (RAY_\w+)=(\S+)", (DEPLOY / "slurm/env.sh").read_text(), re.MULTILINE))
    wanted = {name: value for name, value in shell.items() if name.startswith("RAY_")}
    assert wanted["RAY_AUTH_MODE"] == "token" and wanted["RAY_worker_niceness"] == "0" and len(wanted) == 5
    assert wanted == image == {name: value for name, value in units.items() if name.startswith("RAY_")}
    assert wanted.items() <= batch.items()
    assert FOLDER_VARIABLE in shell and FOLDER_VARIABLE in units


def test_constraints_pin_every_dependency() -> None:
    lines = (DEPLOY / "constraints.txt").read_text().splitlines()
    assert all(re.fullmatch(r"[a-z0-9-]+==[\w.]+", line) for line in lines) and lines == sorted(
        lines, key=lambda line: line.split("==")[0]
    )
    pins = dict(line.split("==") for line in lines)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for text in sum(project["optional-dependencies"].values(), project["dependencies"]):
        requirement = Requirement(text)
        pin = pins[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(pin), text


def test_versions_agree_between_files() -> None:
    pins = dict(line.split("==") for line in (DEPLOY / "constraints.txt").read_text().splitlines())
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    claim, cluster = yaml.safe_load_all((DEPLOY / "kuberay/outertrain.yaml").read_text())
    assert claim["kind"] == "PersistentVolumeClaim" and cluster["kind"] == "RayCluster"
    assert cluster["spec"]["rayVersion"] == pins["ray"]
    groups = [cluster["spec"]["headGroupSpec"], *cluster["spec"]["workerGroupSpecs"]]
    containers = [c for group in groups for c in group["template"]["spec"]["containers"]]
    ours = [c for c in containers if c["name"].startswith("ray-")]
    assert len(ours) == 2 and all(c["image"] == f"outertrain:{version}" for c in ours)
    [theirs] = [c for c in containers if c["name"] == "prometheus"]
    assert theirs["image"] == read_yaml(MONITORING / "compose.yaml")["services"]["prometheus"]["image"]


def test_image_is_unprivileged_and_copies_only_listed_files() -> None:
    text = (DEPLOY / "Dockerfile").read_text()
    instructions = re.findall(r"^([A-Z]+) (.*)$", text, re.MULTILINE)
    assert [value for name, value in instructions if name == "USER"] == ["1000:1000"]
    assert "-c constraints.txt" in text and ":latest" not in text
    kept = {
        line.removeprefix("!")
        for line in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
        if line[0] == "!"
    }
    copied = {word for name, value in instructions if name == "COPY" for word in value.split()[:-1]}
    assert copied == kept and all((ROOT / name).exists() for name in kept)


@pytest.mark.parametrize("path", UNITS, ids=lambda p: p.name)
def test_systemd_unit_is_confined(path: Path) -> None:
    lines = path.read_text().splitlines()
    for line in ("User=outertrain", "EnvironmentFile=/etc/outertrain/env", "NoNewPrivileges=yes", "ProtectHome=yes"):
        assert line in lines


def test_readme_deployments_are_short_and_name_existing_files() -> None:
    text = (DEPLOY / "README.md").read_text()
    deployments = re.split(r"^## ", text, flags=re.MULTILINE)[2:9]
    assert [section.splitlines()[0] for section in deployments] == [
        "This machine",
        "AWS",
        "Google Cloud",
        "Your own machines",
        "systemd",
        "Kubernetes",
        "Slurm",
    ]
    for section in deployments:
        commands = [line for line in section.splitlines() if re.match(r" {4}\S", line)]
        assert 0 < len(commands) <= 10, section.splitlines()[0]
    for name in set(re.findall(r"deploy/[\w./-]+\.\w+", text)):
        assert (ROOT / name).exists(), name
