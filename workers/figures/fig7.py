"""Figure 7: the learned optimizers on networks and data that they were never trained on (paper section 4.4).

A six-layer convolutional network on 28x28 digits, also with the optimizers that we ship; and other widths, depths,
image sizes, batch sizes, fully connected networks, and ten times the inner steps. Digits are MNIST's where a class
store of them lies at data/mnist, otherwise scikit-learn's 8x8 digits, enlarged, and labelled so.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from common import pretrained
from common.task import SPLITS, gather, image_family
from workers.evaluation.evaluator import Evaluator
from workers.evaluation.jobs import UnrollJob, encode
from workers.evaluation.tuning import TUNED, grid_rates
from workers.figures.digits import Digits
from workers.figures.fig5 import best_theta
from workers.figures.figure import Record, Train, Verdict, config_of, evaluator_of, item, of_kind, rounded, row
from workers.figures.statistics import bootstrap

CLAIM = "The learned optimizers still train a six-layer network on 28x28 digits; the one for validation loss generalises better."
NEEDS = ("fig5",)

MNIST = Path("data/mnist")  # a class store: outertrain data prepare tfds:mnist data/mnist
SIX = ("task.units=[16, 16, 16, 16, 16, 16]", "task.strides=[2, 1, 2, 1, 2, 1]")
ELSEWHERE: dict[str, tuple[str, ...]] = {
    "same tasks": (),
    "3 x wider": ("task.units=[24, 24, 24]",),
    "6 layers": ("task.units=[8, 8, 8, 8, 8, 8]", "task.strides=[2, 1, 2, 1, 1, 1]"),
    "16 x 16 images": ("dataset.image_size=16",),
    "batches of 8": ("task.batch_size=8",),
    "batches of 128": ("task.batch_size=128",),
    "fully connected": ("task.family=mlp", "task.units=[32, 32]"),
    "10 x the steps": ("task.inner_steps=3000",),
}
SCALES: dict[str, dict[str, Any]] = {
    "mini": {"base": ("mini",), "digits": SIX, "problems": 4, "starts": 3, "elsewhere": ELSEWHERE},
    "paper": {
        "base": ("paper",),
        "digits": ("task.units=[32, 32, 32, 32, 32, 32]", SIX[1]),
        "problems": 10,
        "starts": 5,
        "elsewhere": {
            "same tasks": (),
            "3 x wider": ("task.units=[96, 96, 96]",),
            "6 layers": ("task.units=[32, 32, 32, 32, 32, 32]", "task.strides=[2, 1, 1, 1, 1, 1]"),
            "batches of 8": ("task.batch_size=8",),
            "fully connected": ("task.family=mlp", "task.units=[128, 128]"),
            "10 x the steps": ("task.inner_steps=100000",),
        },
    },
}


def items(scale: str, rows: Sequence[Mapping[str, Any]]) -> list[Record]:
    thetas = {f"learned ({objective})": best_theta(rows, objective) for objective in ("train", "valid")}
    if None in thetas.values():
        return []
    chosen, listed = SCALES[scale], []
    source = "MNIST" if MNIST.is_dir() else "scikit-learn's digits, enlarged"
    on_digits = {**thetas, **shipped(chosen["base"])}
    for start in range(chosen["starts"]):
        for name in (*on_digits, *TUNED):
            fields = {
                "where": "digits",
                "source": source,
                "task": 0,
                "start": start,
                "optimizer": name,
                "theta": on_digits.get(name),
            }
            listed.append(
                item(
                    "fig7",
                    "curve",
                    f"digits-{name}-{start}".replace(" ", ""),
                    (*chosen["base"], *chosen["digits"]),
                    **fields,
                )
                | {"mnist": str(MNIST.absolute())}
            )
    for where, overrides in chosen["elsewhere"].items():
        for task in range(chosen["problems"]):
            for name in (*thetas, "adam"):
                fields = {
                    "where": where,
                    "source": "",
                    "task": 2000 + task,
                    "start": 0,
                    "optimizer": name,
                    "theta": thetas.get(name),
                }
                label = f"{where}-{name}-{task}".replace(" ", "")
                listed.append(item("fig7", "curve", label, (*chosen["base"], *overrides), **fields))
    return listed


def shipped(settings: tuple[str, ...]) -> dict[str, str]:
    """Encoded theta by name, of the shipped optimizers of this configuration's family: trained on larger tasks."""
    files = {name: pretrained.load(pretrained.find(name) or Path(name)) for name in pretrained.names()}
    family = config_of(settings).optimizer
    return {name: encode(file.theta) for name, file in files.items() if file.optimizer == family}


def perform(record: Mapping[str, Any], train: Train) -> Record:
    """Curves of one optimizer on one problem; of a baseline those of its best rate for train and for test loss."""
    settings = tuple(record["settings"])
    mnist = record["mnist"] if record["source"] == "MNIST" else None
    evaluator = digits_evaluator(settings, mnist) if record["where"] == "digits" else evaluator_of(settings)
    optimizer = record["optimizer"] if record["theta"] is None else "learned"
    rates = grid_rates(evaluator.config.evaluation) if record["theta"] is None else [None]
    runs = [
        evaluator.run(UnrollJob(optimizer, record["task"], record["start"], rate, record["theta"])) for rate in rates
    ]
    best = {loss: min(runs, key=lambda run: run.mean(loss)) for loss in ("train", "test")}
    return row(
        record,
        steps=list(runs[0].steps),
        first=float(np.log(evaluator.config.task.classes)),
        **{loss: rounded(run.curves.of(loss), 4) for loss, run in best.items()},
        **{f"mean_{loss}": rounded(run.mean(loss)) for loss, run in best.items()},
        rates=[run.rate for run in best.values()],
    )


@lru_cache(maxsize=2)
def digits_evaluator(settings: tuple[str, ...], mnist: str | None) -> Evaluator:
    """Evaluates on all ten digits, of a class store or of scikit-learn: with ten classes there is one task only."""
    config = config_of(settings)
    if mnist is not None:
        from common.data.dataset import open_dataset

        dataset: Any = open_dataset(config_of((*settings, "dataset.source=store", f"dataset.path={mnist}")).dataset)
    else:
        dataset = Digits(28, seed=config.dataset.seed)
    data = {split: gather(dataset, np.arange(10), split) for split in SPLITS}
    return Evaluator(config, image_family(config.task, dataset.image_shape, lambda random, outer_split: data))


def gaps(rows: Sequence[Mapping[str, Any]], where: str, name: str, loss: str) -> np.ndarray:
    """[problems] mean loss of Adam at its best rate, minus that of a learned optimizer."""
    found = [r for r in of_kind(rows, "fig7", "curve") if r["where"] == where]
    value = {(r["optimizer"], r["task"], r["start"]): r[f"mean_{loss}"] for r in found}
    problems = sorted({(r["task"], r["start"]) for r in found})
    return np.array([value["adam", *problem] - value[name, *problem] for problem in problems])


def drops(rows: Sequence[Mapping[str, Any]], name: str) -> np.ndarray:
    """[starts] how far a learned optimizer brings the train loss on digits below that of guessing."""
    found = [r for r in of_kind(rows, "fig7", "curve") if (r["where"], r["optimizer"]) == ("digits", name)]
    return np.array([r["first"] - r["train"][-1] for r in found])


def verdict(rows: Sequence[Mapping[str, Any]]) -> Verdict:
    learned = ("learned (train)", "learned (valid)")
    falls = {name: bootstrap(drops(rows, name)) for name in learned}
    better = bootstrap(gaps(rows, "digits", learned[1], "test") - gaps(rows, "digits", learned[0], "test"))
    source = next(r["source"] for r in of_kind(rows, "fig7", "curve") if r["where"] == "digits")
    elsewhere = [
        where for where in dict.fromkeys(r["where"] for r in of_kind(rows, "fig7", "curve")) if where != "digits"
    ]
    table = "; ".join(f"{where} {bootstrap(gaps(rows, where, learned[0], 'train'))}" for where in elsewhere)
    sentence = (
        f"Digits ({source}): the train loss ends {falls[learned[0]]} nats below guessing with {learned[0]}, {falls[learned[1]]} "
        f"with {learned[1]}, whose mean test loss is lower by {better}. Adam at its best rate minus {learned[0]}, mean train "
        f"loss: digits {bootstrap(gaps(rows, 'digits', learned[0], 'train'))}; {table}."
    )
    for name in (name for name in pretrained.names() if len(drops(rows, name))):
        gap = bootstrap(gaps(rows, "digits", name, "train"))
        sentence += (
            f" Shipped {name} on digits: {bootstrap(drops(rows, name))} nats below guessing, Adam minus it {gap}."
        )
    return Verdict(bool(all(fall.low > 0 for fall in falls.values()) and better.low > 0), sentence)


def draw(rows: Sequence[Mapping[str, Any]]) -> Any:
    from common import plotting

    elsewhere = [
        where for where in dict.fromkeys(r["where"] for r in of_kind(rows, "fig7", "curve")) if where != "digits"
    ]
    titles = ["digits, train loss", "digits, test loss", *(f"{where}, train loss" for where in elsewhere)]
    figure, panels = plotting.panels((len(titles) + 2) // 3, 3, titles)
    for axes, (where, loss) in zip(
        panels, [("digits", "train"), ("digits", "test"), *((w, "train") for w in elsewhere)]
    ):
        found = [r for r in of_kind(rows, "fig7", "curve") if r["where"] == where]
        for name in dict.fromkeys(r["optimizer"] for r in found):
            lines = [r[loss] for r in found if r["optimizer"] == name]
            label = plotting.NAMES.get(name, name)
            axes.plot(
                found[0]["steps"], np.mean(lines, axis=0), color=plotting.COLOURS[name], label=label, linewidth=1.2
            )
        plotting.label(axes, "inner step", "loss", legend=axes in (panels[0], panels[2]))
    return figure
