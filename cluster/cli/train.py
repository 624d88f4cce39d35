"""The main job: outer-train, evaluate on unseen tasks, report."""

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.cli import console
from cluster.cli.interrupt import Interrupt
from cluster.launchers.local import Host, Status
from cluster.monitoring import progress
from cluster.runs.directory import EVALUATION, RunDirectory, exclusive, load_theta
from cluster.runs.open import Request, open_run
from common.config import Config
from common.errors import UserError
from learner.history import read_history

if TYPE_CHECKING:
    from cluster.jobs.evaluation import Interim

INTERRUPTED = 130


def train(request: Request) -> int:
    """Returns the exit code."""
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
            whole = work(run, config, request, interrupt, show)
        except UserError:
            undo()
            raise
        if not whole:
            show.say(f"stopped with a checkpoint; go on with: outertrain train --name {run.name} --resume")
            return INTERRUPTED
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


def work(run: RunDirectory, config: Config, request: Request, interrupt: Interrupt, show: console.Display) -> bool:
    """Training and evaluation; False when they were interrupted."""
    with make_host(run, config, request.in_process) as host:
        from cluster.jobs.evaluation import Interim, evaluate

        interim = Interim(run, config, host.pool())
        if not follow(host, config, interim, interrupt, show):
            return False
        if not request.evaluate or config.evaluation.tasks == 0:
            return True
        theta, version = load_theta(run)
        return evaluate(run, config, theta, version, host.pool(), teller("evaluating", interrupt, show))


def teller(what: str, interrupt: Interrupt, show: console.Display) -> Callable[[int, int], bool]:
    """The `progress` of a job that ends early when it is interrupted."""

    def tell(done: int, total: int) -> bool:
        show.counting(what, done, total)
        return not interrupt.asked

    return tell


def make_host(run: RunDirectory, config: Config, in_process: bool) -> Host:
    if in_process:
        from common import runtime

        runtime.prepare(pin=False)
        from cluster.launchers.in_process import InProcess

        return InProcess(run, config)
    from cluster.launchers.local import LocalRun

    return LocalRun(run, config)


def follow(host: Host, config: Config, interim: "Interim", interrupt: Interrupt, show: console.Display) -> bool:
    """Shows how the training goes on until it has its updates; False when it was interrupted."""
    going = True
    while going:
        if interrupt.asked:
            return False
        going = host.advance()
        status = host.status()
        show.training(summarise(status, config))
        interim.step(status.learner["version"])
    return True


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
    times = [record["time"] for record in read_history(run.path) if record["time"] >= began]
    return min(times) - began if times else None


def process_start() -> float:
    """When this process was started, in unix seconds."""
    ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / 100
    return time.time() - age if sys.platform == "linux" else time.time()
