"""Evaluation of a run with a mixture: one comparison for each family of tasks, in a folder of its own."""

from collections.abc import Iterator
from typing import NamedTuple

from cluster.jobs.job import MEMBER, Ended, Job, Pool
from cluster.runs.directory import RunDirectory
from common.config import Config
from common.errors import UserError


class Part(NamedTuple):
    """What is evaluated on one family of tasks."""

    name: str  # "" without a mixture
    run: RunDirectory  # receives the results
    config: Config  # of the family alone

    @property
    def title(self) -> str:
        """To append to a sentence."""
        return f" on {self.name}" if self.name else ""

    def pool(self, pool: Pool) -> Pool:
        """A pool for the jobs of this part."""
        return FamilyPool(pool, self.name) if self.name else pool


def parts(run: RunDirectory, config: Config, family: str | None = None) -> list[Part]:
    """The parts of an evaluation: one for each family of the mixture, with a folder; without a mixture, the run itself.

    Args:
      family: the only one that is evaluated.

    Raises:
      UserError: there is no such family.
    """
    names = [member.name for member in config.members]
    if family is not None and family not in names:
        known = f"has {', '.join(names)}" if config.mixture else "has no mixture"
        raise UserError(f"--family {family}: the configuration {known}")
    if not config.mixture:
        return [Part("", run, config)]
    return list(_of_mixture(run, config, family))


def _of_mixture(run: RunDirectory, config: Config, family: str | None) -> Iterator[Part]:
    for member in config.members:
        if family in (None, member.name):
            own = run.of_family(member.name)
            own.evaluation.mkdir(parents=True, exist_ok=True)
            own.write_config(member.config)
            yield Part(member.name, own, member.config)


class FamilyPool:
    """A pool whose jobs are on one family of tasks: workers know the whole mixture."""

    def __init__(self, pool: Pool, family: str):
        self._pool, self._family = pool, family

    def free_slots(self) -> int:
        return self._pool.free_slots()

    def submit(self, job: Job) -> None:
        self._pool.submit(Job(job.name, {**job.spec, MEMBER: self._family}))

    def collect(self) -> list[Ended]:
        """Those that an interrupted evaluation of another family has left in the pool have the same names."""
        return [ended for ended in self._pool.collect() if ended.job.spec.get(MEMBER) == self._family]
