"""The main job: outer-train, evaluate on unseen tasks, report."""

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.cli import console
from cluster.cli.interrupt import Interrupt, Interrupted
from cluster.launchers.local import Host, Status
from cluster.monitoring import progress
from cluster.runs.directory import EVALUATION, RunDirectory, exclusive, load_theta
from cluster.runs.open import Request, open_run
from common.config import Config
from common.errors import UserError
from learner.history import read_history

if TYPE_CHECKING:
    from cluster.jobs.evaluation import Interim


def train(request: Request) -> int:
    """Returns the exit code. Raises Interrupted when the user stops it; the run then has a checkpoint."""
    began = process_start()
    run, undo, note = open_run(request)
    config = run.config()
    with ExitStack() as stack:
        try:
            stack.enter_context(held(run, request, config))
            interrupt, show = stack.enter_context(Interrupt()), stack.enter_context(console.make())
            if note:
                show.say(note)
            show.say(f"run {run.name}: {config.outer.updates} outer updates, results in {run.path}")
            work(run, config, request, interrupt, show)
        except Interrupted:
            raise Interrupted(
                f"stopped with a checkpoint; resume with: outertrain train --name {run.name} --resume"
            ) from None
        except UserError:
            undo()
            raise
        facts = conclude(run, config, began, show)
    if request.json:
        print(json.dumps(facts), flush=True)
    return 0


@contextmanager
def held(run: RunDirectory, request: Request, config: Config) -> Iterator[None]:
    """Holds the run, and where the command evaluates, its evaluation too."""
    with ExitStack() as stack:
        stack.enter_context(exclusive(run))
        if request.evaluate or config.evaluation.every:
            stack.enter_context(exclusive(run, EVALUATION))
        yield


def work(run: RunDirectory, config: Config, request: Request, interrupt: Interrupt, show: console.Display) -> None:
    """Trains and evaluates. Raises Interrupted."""
    with make_host(run, config, request.in_process) as host:
        from cluster.jobs.evaluation import Interim, evaluate

        interim = Interim(run, config, host.pool())
        follow(host, config, interim, interrupt, show)
        if request.evaluate and config.evaluation.tasks > 0:
            theta, version = load_theta(run)
            evaluate(run, config, theta, version, host.pool(), counter("evaluating", interrupt, show))


def counter(what: str, interrupt: Interrupt, show: console.Display) -> Callable[[int, int], None]:
    """Returns a `progress` callback that displays the counts, then raises Interrupted if the user asked to stop."""

    def report(done: int, total: int) -> None:
        show.counting(what, done, total)
        interrupt.check()

    return report


def make_host(run: RunDirectory, config: Config, in_process: bool) -> Host:
    if in_process:
        from common import runtime

        runtime.prepare(pin=False)
        from cluster.launchers.in_process import InProcess

        return InProcess(run, config)
    from cluster.launchers.local import LocalRun

    return LocalRun(run, config)


def follow(host: Host, config: Config, interim: "Interim", interrupt: Interrupt, show: console.Display) -> None:
    """Displays the progress of the training until all its updates are done. Raises Interrupted."""
    going = True
    while going:
        interrupt.check()
        going = host.advance()
        status = host.status()
        show.training(summarise(status, config))
        interim.step(status.learner["version"])


def summarise(status: Status, config: Config) -> progress.Progress:
    learner = status.learner
    return progress.summarise(
        learner["records"], learner["version"], config.outer.updates, status.fleet, now=time.time()
    )


def conclude(run: RunDirectory, config: Config, began: float, show: console.Display) -> dict[str, Any]:
    """The report, the final table, and what --json prints."""
    from cluster.jobs.evaluation import summary_of
    from cluster.report.page import write_report
    from cluster.report.table import final_table

    page = write_report(run.path)
    theta, version = load_theta(run)
    facts = {
        "run": run.name,
        "version": version,
        "seconds_to_first_update": first_update(run, began),
        "seconds_total": time.time() - began,
        **summary_of(run, config, theta),
        "report": str(page),
    }
    run.write_summary(facts)
    show.say(final_table(run, config))
    show.say(f"report: {page}")
    return facts


def first_update(run: RunDirectory, began: float) -> float | None:
    """Seconds from the start of this command to the first outer update it made; None when it made none."""
    times = [record.time for record in read_history(run.path) if record.time >= began]
    return min(times) - began if times else None


def process_start() -> float:
    """When this process was started, in unix seconds."""
    ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / 100
    return time.time() - age if sys.platform == "linux" else time.time()
