"""Jobs: independent computations, such as the unrolls of an evaluation, each done by any one worker.

A job has a name, and its result is one JSON line with this name. Names are idempotent: a job that has a result is not
computed again, so an interrupted command resumes where it stopped, and a lost worker costs the time of its job only.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol, Self

from common import jsonlines
from common.errors import UserError

Json = dict[str, Any]
Progress = Callable[[int, int], None]  # (jobs done, jobs in all); an exception that it raises ends the command

NAME = "item"  # the key of the name, in a specification and in a result
MEMBER = "member"  # the key of a job that names its family of tasks, in a run with a mixture
ATTEMPTS = 3  # workers that a job may cost before it is abandoned


class Job(NamedTuple):
    """A job as it is sent to a worker."""

    name: str
    spec: Json  # what the worker needs; holds the name too

    @classmethod
    def from_json(cls, spec: Mapping[str, Any]) -> Self:
        return cls(spec[NAME], dict(spec))


class Ended(NamedTuple):
    """A job that a pool has done, or has not."""

    job: Job
    result: Json | None  # None: its worker was lost, or was stopped before it began
    reason: str = ""  # why the worker was lost; "" if it was stopped


class Pool(Protocol):
    """Workers that compute jobs."""

    def free_slots(self) -> int:
        """The number of jobs that can be submitted now."""
        ...

    def submit(self, job: Job) -> None: ...

    def collect(self) -> list[Ended]:
        """The jobs that have ended since the last call. Waits a moment if there are none."""
        ...


def read(path: Path, counts: Callable[[Json], bool] = lambda line: True) -> dict[str, Json]:
    """The results in a JSON-lines file by name; none if it does not exist."""
    return {line[NAME]: line for line in jsonlines.read(path) if NAME in line and counts(line)}


class Results:
    """The results in a JSON-lines file, which must have no other writer.

    Args:
      counts: whether a line counts as the result of its job; the job of another one is computed again.

    Raises OSError when the file cannot be written: at once, not with the first result.
    """

    def __init__(self, path: Path, counts: Callable[[Json], bool] = lambda line: True):
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self.by_name = read(path, counts)
        self._writer = jsonlines.Writer(path)
        self._writer.flush()

    def add(self, result: Json) -> None:
        """Appends a result, unless its name has one."""
        if result[NAME] in self.by_name:
            return
        self.by_name[result[NAME]] = result
        self._writer.add(result)
        self._writer.flush()

    def missing(self, jobs: Iterable[Job]) -> list[Job]:
        return [job for job in jobs if job.name not in self.by_name]

    def of(self, jobs: Iterable[Job]) -> list[Json]:
        """The results of jobs that all have one, in their order."""
        return [self.by_name[job.name] for job in jobs]


class JobQueue:
    """Jobs that wait for a worker or for their result. More may be added at any time.

    Results of jobs that an earlier queue has left in the pool are stored too.
    """

    def __init__(self, jobs: Iterable[Job], results: Results, pool: Pool):
        self.total = 0
        self._results, self._pool = results, pool
        self._waiting: deque[Job] = deque()
        self._left: set[str] = set()  # names of jobs without a result
        self._attempts: Counter[str] = Counter()
        self.add(jobs)

    def add(self, jobs: Iterable[Job]) -> None:
        jobs = list(jobs)
        missing = self._results.missing(jobs)
        self._waiting += missing
        self._left |= {job.name for job in missing}
        self.total += len(jobs)

    @property
    def done(self) -> int:
        return self.total - len(self._left)

    @property
    def finished(self) -> bool:
        return not self._left

    def step(self) -> None:
        """Submits jobs while slots are free, and stores the results that have arrived.

        Raises:
          UserError: a job has cost `ATTEMPTS` workers.
          OSError: results cannot be stored; their jobs wait again.
        """
        while self._waiting and self._pool.free_slots() > 0:
            self._pool.submit(self._waiting.popleft())
        failed = None
        for ended in self._pool.collect():
            try:
                self._store(ended)
            except OSError as error:
                self._waiting.append(ended.job)
                failed = error
        if failed is not None:
            raise failed

    def _store(self, ended: Ended) -> None:
        job, result, reason = ended
        if result is not None:
            self._results.add(result)
            self._left.discard(job.name)
            return
        if job.name not in self._left:
            return
        self._attempts[job.name] += reason != ""
        if self._attempts[job.name] == ATTEMPTS:
            raise UserError(f"{job.name} failed {ATTEMPTS} times; the last error: {reason}")
        self._waiting.append(job)


def run(jobs: Iterable[Job], results: Results, pool: Pool, progress: Progress) -> None:
    """Computes all jobs that have no result yet.

    Args:
      progress: called before each step, and at the end; never where there are no jobs. When it raises an exception, the
        results so far are kept.

    Raises:
      UserError: a job failed repeatedly.
    """
    queue = JobQueue(jobs, results, pool)
    if queue.total:
        progress(queue.done, queue.total)
    while not queue.finished:
        queue.step()
        progress(queue.done, queue.total)


class InProcessPool:
    """Computes each job in this process, when it is submitted."""

    def __init__(self, perform: Callable[[Json], Json]):
        """Args:
        perform: (specification) -> result.
        """
        self._perform = perform
        self._ended: list[Ended] = []

    def free_slots(self) -> int:
        return 0 if self._ended else 1

    def submit(self, job: Job) -> None:
        self._ended.append(Ended(job, self._perform(job.spec)))

    def collect(self) -> list[Ended]:
        ended, self._ended = self._ended, []
        return ended
