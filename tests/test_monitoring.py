"""Monitoring for real: a run under Ray, a Prometheus that finds it through the shipped files, faults that fire alerts.

Needs Debian's `prometheus`, `prometheus-alertmanager`, `systemd` and `docker-compose`. All tests of the run need root and the
right to mount: its directory is on a small disk.
"""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest
import yaml
from helpers.exposition import exposition
from test_deploy import DEPLOY, MONITORING, alerts, panels, rules

from cluster.monitoring.fleet_metrics import FleetMetrics
from cluster.monitoring.metrics import LearnerMetrics
from cluster.monitoring.scrape import DIRECT

pytestmark = pytest.mark.cluster

RUN = "watched"
# A mixture, so that the panels of families have series too.
CONFIG = """
[task]
family = "quadratic"
inner_steps = 40
[[mixture]]
name = "small"
task = { options = { dimension = 2 } }
[[mixture]]
name = "large"
task = { options = { dimension = 5 } }
[estimator]
pairs = 2
[curriculum]
start = 5
end = 12
[outer]
updates = 1000000
batch_samples = 4
keep_checkpoints = 2
[evaluation]
tasks = 0
"""
RAY = """
import os, sys, ray
ray.init(address="local", num_cpus=1, include_dashboard=True, dashboard_port=0, _temp_dir=sys.argv[1],
         object_store_memory=100 * 2**20, log_to_driver=False)
print("up", flush=True)
sys.stdin.read()
"""


class Watched(NamedTuple):
    """A run that continues until it is stopped, and the Prometheus that watches it."""

    run_dir: Path
    train: subprocess.Popen[bytes]
    url: str

    def query(self, expr: str) -> list[dict[str, Any]]:
        asked = urllib.parse.urlencode({"query": expr})
        with DIRECT.open(f"{self.url}/api/v1/query?{asked}", timeout=10) as answer:
            return json.load(answer)["data"]["result"]

    def firing(self, alert: str) -> bool:
        return bool(self.query(f'ALERTS{{alertname="{alert}", alertstate="firing", run="{RUN}"}}'))

    def process(self, name: str) -> list[psutil.Process]:
        """Running processes of the run's own Ray, by the name of their actor."""
        found = []
        for process in psutil.Process(self.train.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):  # it has ended since, or is a zombie
                if name in " ".join(process.cmdline()):
                    found.append(process)
        return found


def await_(holds: Callable[[], Any], seconds: float, what: str) -> None:
    """Other programs tell us nothing when they are ready: ask until they are."""
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until, f"waited {seconds} s for {what}"
        time.sleep(0.25)


def stop(process: subprocess.Popen[bytes], how: signal.Signals = signal.SIGINT, seconds: float = 60) -> None:
    if process.poll() is None:
        process.send_signal(how)
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(10)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def quicken(folder: Path, ray_file: Path) -> None:
    """The shipped configuration with seconds in place of minutes, and with another Ray's list of endpoints."""
    shutil.copytree(MONITORING, folder)
    config = (folder / "prometheus.yml").read_text()
    config = (
        config.replace("15s", "1s")
        .replace("10s", "1s")
        .replace("/tmp/ray/prom_metrics", f"{ray_file.parent}/prom_metrics")
    )
    (folder / "prometheus.yml").write_text(config)
    for path in (folder / "rules").glob("*.yml"):
        path.write_text(re.sub(r"for: \d+m", "for: 1s", path.read_text()))


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A small disk of its own for the run directories."""
    folder = tmp_path_factory.mktemp("disk")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "none", folder], check=True)
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.fixture(scope="module")
def rays_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The file in which a Ray with its dashboard lists its metrics endpoints."""
    home = tmp_path_factory.mktemp("h")
    folder = Path(subprocess.check_output(["mktemp", "-d"], text=True).strip())  # short: Ray's sockets lie in it
    environment = {**os.environ, "HOME": str(home), "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    process = subprocess.Popen(
        [sys.executable, "-c", RAY, str(folder)], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    listing = folder / "prom_metrics_service_discovery.json"
    assert process.stdin is not None and process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    await_(listing.exists, 60, "Ray's list of endpoints")
    yield listing
    process.stdin.close()
    process.wait(60)
    process.stdout.close()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def watched(disk: Path, rays_own: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    folder = tmp_path_factory.mktemp("prometheus") / "monitoring"
    quicken(folder, rays_own)
    environment = {**os.environ, "OUTERTRAIN_RUNS": str(disk), "OUTERTRAIN_TARGETS": str(folder / "targets")}
    (folder / "run.toml").write_text(CONFIG)
    log = (folder / "train.log").open("wb")
    command = [
        sys.executable,
        "-m",
        "cluster.cli.main",
        "train",
        str(folder / "run.toml"),
        "--name",
        RUN,
        "--workers",
        "2",
    ]
    train = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    port = free_port()
    arguments = [
        f"--config.file={folder}/prometheus.yml",
        f"--storage.tsdb.path={folder}/data",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    prometheus = subprocess.Popen(["prometheus", *arguments], stdout=log, stderr=log)
    watched = Watched(disk / RUN, train, f"http://127.0.0.1:{port}")
    try:
        await_(lambda: train.poll() is not None or (disk / RUN / "history.jsonl").exists(), 120, "the first update")
        assert train.poll() is None, (folder / "train.log").read_text()
        await_(lambda: answers(watched), 30, "Prometheus")
        yield watched
    finally:
        stop(train)
        stop(prometheus, signal.SIGTERM)
        log.close()


def answers(watched: Watched) -> bool:
    try:
        return bool(watched.query("vector(1)"))
    except OSError:
        return False


def test_expressions_of_a_running_run_find_series(watched: Watched) -> None:
    """Rules that record, and panels; alerts are silent in a sound run: what they look at must be there."""
    shown = [target["expr"] for _, panel in panels() for target in panel.get("targets", ())]
    recorded = [rule["expr"] for rule in rules() if "record" in rule]
    looked_at = {
        name for alert in alerts() for name in re.findall(r"\b(?:run\w*:)?outertrain_[\w:]+|\bup\b", alert["expr"])
    }
    asked = [e.replace("$run", RUN).replace("$node", ".*") for e in shown] + recorded + sorted(looked_at)
    assert len(asked) > 80
    pending = set(asked)

    def all_found() -> bool:
        pending.difference_update([expr for expr in pending if watched.query(expr)])
        return not pending

    try:
        await_(all_found, 90, "every expression")
    finally:
        assert sorted(pending) == []


def test_alerts_of_a_healthy_run_are_silent(watched: Watched) -> None:
    """Even without the rules' waiting times; its disk is small, and quadratics leave the weight of rp where it is."""
    fired = watched.query(f'ALERTS{{alertname=~"Outertrain.*", severity!="info", run="{RUN}"}}')
    assert {one["metric"]["alertname"] for one in fired} <= {"OutertrainDiskFilling"}


def test_killed_learner_is_found_again_on_another_port(watched: Watched) -> None:
    up = f'up{{role="learner", run="{RUN}"}} == 1'
    await_(lambda: watched.query(up), 30, "a scrape")
    [before] = watched.query(up)
    epoch = watched.query(f'outertrain_epoch{{run="{RUN}"}}')[0]["value"][1]
    [learner] = watched.process("LearnerActor")
    learner.kill()
    back = f'outertrain_epoch{{run="{RUN}"}} > {epoch}'
    await_(lambda: watched.query(back), 60, "the next epoch")
    [after] = watched.query(up)
    assert after["metric"]["instance"] != before["metric"]["instance"]
    assert after["metric"]["run"] == before["metric"]["run"]


def test_suspended_learner_fires_learner_down(watched: Watched) -> None:
    [learner] = watched.process("LearnerActor")
    learner.suspend()
    try:
        await_(lambda: watched.firing("OutertrainLearnerDown"), 60, "OutertrainLearnerDown")
    finally:
        learner.resume()
    await_(lambda: not watched.firing("OutertrainLearnerDown"), 60, "the end of OutertrainLearnerDown")


def test_killed_workers_fire_until_they_are_replaced(watched: Watched) -> None:
    full = f'outertrain_workers{{run="{RUN}", state="running"}} == 2'
    await_(lambda: watched.query(full), 60, "both workers")

    def fires_while_they_are_killed() -> bool:
        """Again and again: a worker is back sooner than Prometheus may look."""
        for worker in watched.process("WorkerActor"):
            with suppress(psutil.NoSuchProcess):
                worker.kill()
        return watched.firing("OutertrainWorkersBelowTarget")

    await_(fires_while_they_are_killed, 60, "OutertrainWorkersBelowTarget")
    await_(lambda: watched.query(full) and not watched.firing("OutertrainWorkersBelowTarget"), 90, "both workers again")


def test_full_disk_fires_and_training_continues(watched: Watched, disk: Path) -> None:
    ballast = disk / "ballast"
    updates = f'outertrain_updates_total{{run="{RUN}"}}'
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while file.write(b"\0" * 4096):
            pass
    before = float(watched.query(updates)[0]["value"][1])
    await_(lambda: watched.firing("OutertrainCheckpointFailing"), 60, "OutertrainCheckpointFailing")
    await_(lambda: float(watched.query(updates)[0]["value"][1]) > before, 60, "an update on a full disk")
    ballast.unlink()
    level = f'outertrain_checkpoint_version{{run="{RUN}"}} >= on (run) outertrain_version - 1'
    await_(lambda: watched.query(level), 60, "a checkpoint of the newest version")


def test_run_that_ends_normally_removes_its_targets(watched: Watched) -> None:
    stop(watched.train)
    assert watched.train.returncode in (0, 130)
    assert list(watched.run_dir.glob("metrics-*.json")) == []
    await_(lambda: not watched.query(f'up{{run="{RUN}"}}'), 60, "Prometheus to forget the run")
    await_(
        lambda: not watched.query(f'ALERTS{{alertname=~"Outertrain(Learner|Fleet)Down", run="{RUN}"}}'), 30, "silence"
    )


def check(*command: str | Path, text: str | None = None) -> str:
    """A program's output; it must end well."""
    done = subprocess.run(command, input=text, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_promtool_accepts_configuration_and_rules() -> None:
    check("promtool", "check", "config", MONITORING / "prometheus.yml")
    check("promtool", "check", "rules", *(MONITORING / "rules").glob("*.yml"))
    assert "SUCCESS" in check("promtool", "test", "rules", MONITORING / "rules/tests/alerts_test.yml")


@pytest.mark.parametrize("metrics", [LearnerMetrics, FleetMetrics])
def test_promtool_accepts_the_names_of_metrics(metrics: type[LearnerMetrics] | type[FleetMetrics]) -> None:
    assert check("promtool", "check", "metrics", text=exposition(metrics().registry)) == ""


def test_scrape_takes_less_than_10_ms() -> None:
    metrics = LearnerMetrics()
    seconds = []
    for _ in range(20):
        began = time.perf_counter()
        exposition(metrics.registry)
        seconds.append(time.perf_counter() - began)
    assert min(seconds) < 0.01


def test_alertmanager_and_compose_accept_their_files() -> None:
    assert "SUCCESS" in check("amtool", "check-config", MONITORING / "alertmanager.yml")
    check("docker-compose", "-f", MONITORING / "compose.yaml", "config", "-q")


def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    """With programs that exist here in place of those that will exist there."""
    (tmp_path / "bin").mkdir()
    for program in ("ray", "outertrain"):
        (tmp_path / "bin" / program).symlink_to(sys.executable)
    for path in (DEPLOY / "systemd").glob("*.service"):
        (tmp_path / path.name).write_text(path.read_text().replace("/opt/outertrain/venv/bin", str(tmp_path / "bin")))
    names = ("outertrain-head.service", "outertrain-node.service", "outertrain-run@.service")
    check("systemd-analyze", "verify", "--man=no", *(tmp_path / name for name in names))


def test_dockerfile_has_no_lint() -> None:
    check("hadolint", "--failure-threshold", "info", DEPLOY / "Dockerfile")


def test_shell_settings_set_the_variables(tmp_path: Path) -> None:
    (tmp_path / "outertrain/deploy/monitoring/targets").mkdir(parents=True)
    script = f'. {DEPLOY}/ray/env.sh; printf "%s\\n" "$OUTERTRAIN_RUNS" "$OUTERTRAIN_TARGETS" "$RAY_AUTH_MODE"'
    environment = {"HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    lines = subprocess.check_output(["sh", "-euc", script], env=environment, text=True).splitlines()
    assert lines == [f"{tmp_path}/runs", f"{tmp_path}/outertrain/deploy/monitoring/targets", "token"]


def test_rules_under_test_are_the_shipped_ones() -> None:
    tested = yaml.safe_load((MONITORING / "rules/tests/alerts_test.yml").read_text())["rule_files"]
    loaded = yaml.safe_load((MONITORING / "prometheus.yml").read_text())["rule_files"]
    assert [f"rules/{name.removeprefix('../')}" for name in tested] == loaded
