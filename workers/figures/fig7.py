"""Figure 7: the learned optimizers on networks and data that they were never trained on (paper section 4.4).

A six-layer convolutional network on 28x28 digits, also with the shipped optimizers; and other widths, depths, image
sizes, batch sizes, fully connected networks, and ten times the inner steps. The digits are MNIST's where a class store
of them is at data/mnist, otherwise scikit-learn's 8x8 digits, enlarged, and labelled so.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from common import pretrained
from common.data.dataset import open_dataset
from common.task import SPLITS, gather, image_family
from workers.evaluation.comparison import LEARNED
from workers.evaluation.evaluator import Evaluator
from workers.evaluation.jobs import UnrollJob, encode
from workers.evaluation.tuning import TUNED, LossTable, grid_rates
from workers.figures.digits import Digits
from workers.figures.fig5 import best_theta
from workers.figures.figure import (
    GUESSING,
    Job,
    Kind,
    Outcome,
    Results,
    Settings,
    Train,
    config_of,
    evaluator_of,
    input_only,
    of_kind,
    rounded,
)
from workers.figures.statistics import Decision, every, mean, word

CLAIM = (
    "The learned optimizers still train a six-layer network on 28x28 digits; the one for validation loss trains faster than "
    "tuned Adam and generalises better than the one for train loss."
)
NEEDS = ("fig5",)


@dataclass(frozen=True, kw_only=True)
class CurveJob(Job, figure="fig7", kind="curve"):
    """One optimizer on one problem; a baseline at every rate of the grid."""

    where: str  # "digits", or a key of `Scale.elsewhere`
    source: str  # of the digits
    task: int
    start: int
    optimizer: str
    theta: str | None = input_only()
    mnist: str | None = input_only(deciding=False)  # path of the class store


@dataclass(frozen=True, kw_only=True)
class Curve(CurveJob):
    steps: Sequence[int]  # [points]
    first: float  # the loss of guessing
    train: Sequence[float]  # [points]; of a baseline at its best rate for the mean of this loss
    test: Sequence[float]  # of a baseline at its best rate for the mean valid loss
    mean_train: float
    mean_test: float
    rates: Sequence[float | None]  # these best rates, for train and for valid loss

    def losses(self, loss: str) -> Sequence[float]:
        return self.train if loss == "train" else self.test

    def mean(self, loss: str) -> float:
        return self.mean_train if loss == "train" else self.mean_test


KINDS = (Kind(CurveJob, Curve),)


class Scale(NamedTuple):
    base: Settings
    digits: Settings
    problems: int
    starts: int
    elsewhere: Mapping[str, Settings]


DIGITS = "digits"
MNIST = Path("data/mnist")  # a class store: outertrain data prepare tfds:mnist data/mnist
STRIDES = "task.strides=[2, 1, 2, 1, 2, 1]"
SCALES = {
    "mini": Scale(
        ("mini",),
        digits=("task.units=[16, 16, 16, 16, 16, 16]", STRIDES),
        problems=10,
        starts=10,
        elsewhere={
            "same tasks": (),
            "3 x wider": ("task.units=[24, 24, 24]",),
            "6 layers": ("task.units=[8, 8, 8, 8, 8, 8]", "task.strides=[2, 1, 2, 1, 1, 1]"),
            "16 x 16 images": ("dataset.image_size=16",),
            "batches of 8": ("task.batch_size=8",),
            "batches of 128": ("task.batch_size=128",),
            "fully connected": ("task.family=mlp", "task.units=[32, 32]"),
            "10 x the steps": ("task.inner_steps=3000",),
        },
    ),
    "paper": Scale(
        ("paper",),
        digits=("task.units=[32, 32, 32, 32, 32, 32]", STRIDES),
        problems=10,
        starts=5,
        elsewhere={
            "same tasks": (),
            "3 x wider": ("task.units=[96, 96, 96]",),
            "6 layers": ("task.units=[32, 32, 32, 32, 32, 32]", "task.strides=[2, 1, 1, 1, 1, 1]"),
            "batches of 8": ("task.batch_size=8",),
            "fully connected": ("task.family=mlp", "task.units=[128, 128]"),
            "10 x the steps": ("task.inner_steps=100000",),
        },
    ),
}


def jobs(scale: str, results: Results) -> list[Job]:
    thetas = {f"learned ({objective})": best_theta(results, objective) for objective in ("train", "valid")}
    if None in thetas.values():
        return []
    chosen = SCALES[scale]
    listed: list[Job] = []
    source = "MNIST" if MNIST.is_dir() else "scikit-learn's digits, enlarged"
    on_digits = {**thetas, **shipped(chosen.base)}
    for start in range(chosen.starts):
        for name in (*on_digits, *TUNED):
            job = CurveJob(
                label=f"digits-{name}-{start}".replace(" ", ""),
                settings=(*chosen.base, *chosen.digits),
                where=DIGITS,
                source=source,
                task=0,
                start=start,
                optimizer=name,
                theta=on_digits.get(name),
                mnist=str(MNIST.absolute()),
            )
            listed.append(job.named())
    for where, overrides in chosen.elsewhere.items():
        for task in range(chosen.problems):
            for name in (*thetas, "adam"):
                job = CurveJob(
                    label=f"{where}-{name}-{task}".replace(" ", ""),
                    settings=(*chosen.base, *overrides),
                    where=where,
                    source="",
                    task=2000 + task,
                    start=0,
                    optimizer=name,
                    theta=thetas.get(name),
                )
                listed.append(job.named())
    return listed


def shipped(settings: Settings) -> dict[str, str]:
    """Encoded theta by name, of the shipped optimizers of this configuration's family: trained on larger tasks."""
    files = {name: pretrained.load(pretrained.find(name) or Path(name)) for name in pretrained.names()}
    family = config_of(settings).optimizer
    return {name: encode(file.theta) for name, file in files.items() if file.optimizer == family}


def perform(job: Job, train: Train) -> Job:
    """Curves of one optimizer on one problem; of a baseline those of its best rate for train and for valid loss."""
    assert isinstance(job, CurveJob)
    mnist = job.mnist if job.source == "MNIST" else None
    evaluator = digits_evaluator(job.settings, mnist) if job.where == DIGITS else evaluator_of(job.settings)
    if job.theta is None:
        rates = grid_rates(evaluator.config.evaluation)
        runs = [evaluator.run(UnrollJob(job.optimizer, job.task, job.start, rate)) for rate in rates]
    else:
        rates, runs = [0.0], [evaluator.run(UnrollJob(LEARNED, job.task, job.start, theta=job.theta))]
    tables = (LossTable.of_rates(rates, np.array([[run.mean(loss)] for run in runs])) for loss in ("train", "valid"))
    train_run, test_run = (runs[table.single()] for table in tables)
    return Curve.of(
        job,
        steps=list(train_run.steps),
        first=float(np.log(evaluator.config.task.classes)),
        train=rounded(train_run.curves.train, 4),
        test=rounded(test_run.curves.test, 4),
        mean_train=rounded(train_run.mean("train")),
        mean_test=rounded(test_run.mean("test")),
        rates=[train_run.rate, test_run.rate],
    )


@lru_cache(maxsize=2)
def digits_evaluator(settings: Settings, mnist: str | None) -> Evaluator:
    """Evaluates on all ten digits, of a class store or of scikit-learn: with ten classes there is one task only."""
    config = config_of(settings)
    if mnist is not None:
        dataset: Any = open_dataset(config_of((*settings, "dataset.source=store", f"dataset.path={mnist}")).dataset)
    else:
        dataset = Digits(28, seed=config.dataset.seed)
    data = {split: gather(dataset, np.arange(10), split) for split in SPLITS}
    return Evaluator(config, image_family(config.task, dataset.image_shape, lambda random, outer_split: data))


def curves(results: Results, where: str) -> list[Curve]:
    return [one for one in of_kind(results, Curve) if one.where == where]


def elsewhere(results: Results) -> list[str]:
    """The other problems, in order."""
    return [where for where in dict.fromkeys(one.where for one in of_kind(results, Curve)) if where != DIGITS]


def gaps(results: Results, where: str, name: str, loss: str) -> np.ndarray:
    """[problems] mean loss of Adam at its best rate, minus that of a learned optimizer."""
    found = curves(results, where)
    value = {(one.optimizer, one.task, one.start): one.mean(loss) for one in found}
    problems = sorted({(one.task, one.start) for one in found})
    return np.array([value["adam", *problem] - value[name, *problem] for problem in problems])


def drops(results: Results, name: str) -> np.ndarray:
    """[starts] how far a learned optimizer brings the train loss on digits below that of guessing."""
    return np.array([one.first - one.train[-1] for one in curves(results, DIGITS) if one.optimizer == name])


def pairs(results: Results) -> list[tuple[str, str]]:
    """Names of the learned optimizers on digits, those for train and for validation loss that belong together."""
    names = {one.optimizer for one in curves(results, DIGITS)}
    shipped = [(name, f"{name.removesuffix('-train')}-valid") for name in sorted(names) if name.endswith("-train")]
    return [("learned (train)", "learned (valid)"), *(pair for pair in shipped if pair[1] in names)]


def outcome(results: Results) -> Outcome:
    """Student's tests over starts and problems; of fewer than five there is no interval, and nothing is decided."""
    claims, said = dict[str, Decision](), list[str]()
    for for_train, for_valid in pairs(results):
        falls = {name: mean(drops(results, name)) for name in (for_train, for_valid)}
        better = mean(gaps(results, DIGITS, for_valid, "test") - gaps(results, DIGITS, for_train, "test"))
        faster = {name: mean(gaps(results, DIGITS, name, "train")) for name in falls}
        claims[f"{for_train} and {for_valid} train on digits"] = every(fall.above(0) for fall in falls.values())
        claims[f"{for_valid} trains faster than Adam"] = faster[for_valid].above(0)
        claims[f"and generalises better than {for_train}"] = better.above(0)
        said += [
            f"{name} ends {fall} nats below guessing ({states(results, name)}), Adam at its best rate minus it {faster[name]}"
            for name, fall in falls.items()
        ]
        said.append(f"{for_valid} has a mean test loss lower by {better} than {for_train}")
    told = "; ".join(f"{name}: {word(decision)}" for name, decision in claims.items())
    table = "; ".join(
        f"{where} {mean(gaps(results, where, 'learned (train)', 'train'))}" for where in elsewhere(results)
    )
    return Outcome(
        every(claims.values()),
        f"{told}. Digits ({curves(results, DIGITS)[0].source}), mean train loss: {'; '.join(said)}. "
        f"Adam at its best rate minus learned (train), mean train loss: {table}.",
    )


def states(results: Results, name: str) -> str:
    """What an optimizer has done on digits at the end of each start."""
    losses = np.array([one.train[-1] / one.first for one in curves(results, DIGITS) if one.optimizer == name])
    counts = {
        "learn": int((losses < GUESSING).sum()),
        "guess": int(((losses >= GUESSING) & (losses <= 1 / GUESSING)).sum()),
        "diverge": int((losses > 1 / GUESSING).sum()),
    }
    return ", ".join(f"{count} starts {what}" for what, count in counts.items() if count)
