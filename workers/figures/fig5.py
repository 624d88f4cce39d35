"""Figure 5: outer-training improves train and unseen tasks alike, and starts differ (paper section 4.3).

Several random starts for both objectives; each is evaluated along its training on tasks of outer-train and of
outer-test classes, against Adam at the best rate of each task. The best start by outer-train loss is the learned
optimizer of the other figures.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from common.update_record import UpdateRecord
from workers.evaluation.jobs import UnrollJob, encode
from workers.evaluation.tuning import LossTable, grid_rates
from workers.figures.figure import Record, Train, Verdict, config_of, evaluator_of, item, of_kind, rounded, row
from workers.figures.statistics import bootstrap, difference

CLAIM = (
    "Outer-training improves tasks of outer-train and of unseen classes alike, past tuned Adam; random starts differ."
)
NEEDS = ()

OBJECTIVES: dict[str, tuple[str, ...]] = {
    "train": (),
    "valid": ("estimator.objective=valid", "estimator.outer_batches=1"),
}
SPLITS = ("outer_train", "outer_test")
PROBING = "estimator.probe_rate=0.25"  # rp costs six times what es does
SCALES: dict[str, dict[str, Any]] = {
    "mini": {"base": ("mini", PROBING), "seeds": 3, "points": 6, "tasks": 12},
    "paper": {"base": ("paper",), "seeds": 5, "points": 20, "tasks": 40},
}


def items(scale: str, rows: Sequence[Mapping[str, Any]]) -> list[Record]:
    chosen, listed = SCALES[scale], []
    for objective, overrides in OBJECTIVES.items():
        base = (*chosen["base"], *overrides)
        versions = [round(v) for v in np.linspace(0, config_of(base).outer.updates, chosen["points"])]
        for seed in range(chosen["seeds"]):
            fields = {"objective": objective, "seed": seed, "versions_kept": versions}
            listed.append(item("fig5", "train", f"train-{objective}-seed{seed}", (*base, f"seed={seed}"), **fields))
        for split in SPLITS:
            tasks = list(range(chosen["tasks"]))
            listed.append(
                item("fig5", "adam", f"adam-{objective}-{split}", base, objective=objective, split=split, tasks=tasks)
            )
    for trained in of_kind(rows, "fig5", "train"):
        listed += evaluations(chosen, trained)
    return listed


def evaluations(chosen: Mapping[str, Any], trained: Mapping[str, Any]) -> list[Record]:
    """One item for each point of one training: a theta on all tasks of both kinds."""
    base = (*chosen["base"], *OBJECTIVES[trained["objective"]])
    label = f"{trained['objective']}-seed{trained['seed']}"
    shared = {"objective": trained["objective"], "seed": trained["seed"], "tasks": list(range(chosen["tasks"]))}
    return [
        item("fig5", "evaluation", f"{label}-v{version}", base, version=int(version), theta=theta, **shared)
        for version, theta in trained["thetas"].items()
    ]


def perform(record: Mapping[str, Any], train: Train) -> Record:
    if record["kind"] == "train":
        return learn(record, train)
    return {"adam": adam, "evaluation": evaluation}[record["kind"]](record)


def learn(record: Mapping[str, Any], train: Train) -> Record:
    trained = train(config_of(tuple(record["settings"])), record["versions_kept"])
    return row(
        record, thetas={str(v): encode(theta) for v, theta in trained.kept.items()}, **condensed(trained.history)
    )


def condensed(history: Sequence[UpdateRecord], points: int = 100) -> Record:
    """What figures show of a history, at no more than so many updates."""
    shown = history[:: max(1, len(history) // points)]

    def numbers(values: Iterable[float | None]) -> list[float | None]:
        return [None if v is None else rounded(v) for v in values]

    return {
        "versions": [update.version for update in shown],
        "losses": numbers(update.loss for update in shown),
        "windows": numbers(update.windows.mean for update in shown),
        "weight_rp": numbers(update.weight_rp.mean for update in shown),
        "var_rp": [numbers(update.var_rp[::2]) for update in shown],  # 5, 50 and 95 %
        "var_es": [numbers(update.var_es[::2]) for update in shown],
        "inner_steps": sum(update.inner_steps for update in history),
    }


def evaluation(record: Mapping[str, Any]) -> Record:
    """Mean losses [tasks] of one theta, by outer split."""
    evaluator, losses = evaluator_of(tuple(record["settings"])), {}
    for split in SPLITS:
        runs = [UnrollJob("learned", task, theta=record["theta"], outer_split=split) for task in record["tasks"]]
        losses[split] = [evaluator.run(run).mean(record["objective"]) for run in runs]
    return row(record, **rounded(losses))


def adam(record: Mapping[str, Any]) -> Record:
    """Mean losses [tasks, rates] of Adam."""
    evaluator, rates = (
        evaluator_of(tuple(record["settings"])),
        grid_rates(config_of(tuple(record["settings"])).evaluation),
    )
    losses = [
        [
            evaluator.run(UnrollJob("adam", task, rate=rate, outer_split=record["split"])).mean(record["objective"])
            for rate in rates
        ]
        for task in record["tasks"]
    ]
    return row(record, rates=rates, losses=rounded(losses))


def tuned_adam(rows: Sequence[Mapping[str, Any]], objective: str, split: str) -> np.ndarray:
    """[tasks] mean loss of Adam at the best rate of each task."""
    found = next(r for r in of_kind(rows, "fig5", "adam") if (r["objective"], r["split"]) == (objective, split))
    return LossTable.of_rates(found["rates"], np.transpose(found["losses"])).best()


def curves(rows: Sequence[Mapping[str, Any]], objective: str, split: str) -> dict[int, tuple[list[int], np.ndarray]]:
    """By start: versions, and losses [versions, tasks]."""
    table: dict[int, list[Mapping[str, Any]]] = {}
    for r in of_kind(rows, "fig5", "evaluation"):
        if r["objective"] == objective:
            table.setdefault(r["seed"], []).append(r)
    result = {}
    for seed, found in sorted(table.items()):
        found = sorted(found, key=lambda r: r["version"])
        result[seed] = [r["version"] for r in found], np.array([r[split] for r in found])
    return result


def best_seed(rows: Sequence[Mapping[str, Any]], objective: str) -> int | None:
    """The start with the least outer-train loss at its end; None before all are evaluated."""
    trained = [r for r in of_kind(rows, "fig5", "train") if r["objective"] == objective]
    lines = curves(rows, objective, "outer_train")
    if not trained or any(len(lines.get(r["seed"], ([],))[0]) < len(r["thetas"]) for r in trained):
        return None
    return min(lines, key=lambda seed: lines[seed][1][-1].mean())


def best_training(rows: Sequence[Mapping[str, Any]], objective: str) -> Mapping[str, Any] | None:
    seed = best_seed(rows, objective)
    found = (r for r in of_kind(rows, "fig5", "train") if (r["objective"], r["seed"]) == (objective, seed))
    return next(found, None)


def best_theta(rows: Sequence[Mapping[str, Any]], objective: str) -> str | None:
    """The learned optimizer of the other figures, encoded."""
    trained = best_training(rows, objective)
    return None if trained is None else trained["thetas"][max(trained["thetas"], key=int)]


def verdict(rows: Sequence[Mapping[str, Any]]) -> Verdict:
    parts, holds = [], True
    for objective in OBJECTIVES:
        seed = best_seed(rows, objective)
        assert seed is not None, "the figure is not complete"
        ends = {split: curves(rows, objective, split) for split in SPLITS}
        test = ends["outer_test"][seed][1]
        gap = bootstrap(test[-1] - tuned_adam(rows, objective, "outer_test"))
        over = difference(test[-1], ends["outer_train"][seed][1][-1])
        finals = [losses[-1].mean() for _, losses in ends["outer_test"].values()]
        fell = bootstrap(test[-1] - test[0])
        holds &= fell.high < 0 and gap.high < 0
        parts.append(
            f"{objective} objective: the best of {len(finals)} starts changes the mean loss on unseen tasks by {fell}, "
            f"to {gap} from Adam at the best rate of each task; unseen minus outer-train tasks {over}; "
            f"starts end between {min(finals):.3g} and {max(finals):.3g}"
        )
    return Verdict(bool(holds), "; ".join(parts) + ".")


def draw(rows: Sequence[Mapping[str, Any]]) -> Any:
    from common import plotting

    figure, panels = plotting.panels(1, 2, [f"{objective} objective" for objective in OBJECTIVES])
    for axes, objective in zip(panels, OBJECTIVES):
        best = best_seed(rows, objective)
        for split, style in zip(SPLITS, ("-", "--")):
            for seed, (versions, losses) in curves(rows, objective, split).items():
                colour = plotting.PALETTE[1] if seed == best else plotting.PALETTE[0]
                name = (
                    {"outer_train": "outer-train classes", "outer_test": "unseen classes"}[split]
                    if seed == best
                    else None
                )
                axes.plot(versions, losses.mean(axis=1), style, color=colour, linewidth=1, label=name)
            level = tuned_adam(rows, objective, split).mean()
            axes.axhline(level, color=plotting.INK, linestyle=style, linewidth=0.8)
            axes.set_ylim(0.8 * level, 1.4 * level)  # some starts are far above
        plotting.label(axes, "outer updates", f"mean {objective} loss (black: tuned Adam)")
    return figure
