"""Figure 6: faster than tuned first-order methods on train loss, better on test loss, also in seconds (section 4.4).

On tasks of unseen classes: the learned optimizers of Figure 5, Adam, RMSProp and SGD with momentum at the best rate of
each task (11 rates, for train and for valid loss), and Adam with regularisation and decay, its eight hyper-parameters
from a random search for train and for test loss.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from workers.evaluation import search
from workers.evaluation.jobs import TimingJob, UnrollJob
from workers.evaluation.perform import run_draw
from workers.evaluation.search import SearchJob, SearchResult
from workers.evaluation.tuning import TUNED, LossTable, grid_rates
from workers.figures.fig5 import best_theta
from workers.figures.figure import (
    Record,
    Settings,
    Train,
    Verdict,
    config_of,
    evaluator_of,
    item,
    of_kind,
    rounded,
    row,
)
from workers.figures.statistics import Interval, bootstrap, sign_test

CLAIM = "The learned optimizer is faster than tuned first-order methods on train loss, in steps and in seconds, and better on test loss."
NEEDS = ("fig5",)

TUNED_FOR = {"train": "train", "valid": "test"}  # what is tuned for the left loss is shown on the right one
SCALES: dict[str, dict[str, Any]] = {
    "mini": {"base": ("mini",), "tasks": 20, "starts": 3, "plan": search.MINI},
    "paper": {"base": ("paper",), "tasks": 100, "starts": 5, "plan": search.PAPER},
}


def items(scale: str, rows: Sequence[Mapping[str, Any]]) -> list[Record]:
    chosen = SCALES[scale]
    base, tasks = chosen["base"], list(tasks_of(chosen))
    listed = [
        item("fig6", "grid", f"grid-{name}-{task}", base, optimizer=name, task=task) for task in tasks for name in TUNED
    ]
    mine = of_kind(rows, "fig6", "search")
    plan, length = chosen["plan"], config_of(base).task.inner_steps
    found = search.jobs(plan, length, [SearchResult.from_json(one) for one in mine])
    listed += [{**one.to_json(), "figure": "fig6", "label": one.name, "settings": list(base)} for one in found]
    known = {row["item"] for row in rows}
    if best_theta(rows, "train") is None or any(one["item"] not in known for one in listed):
        return listed
    listed += [curve for task in tasks for curve in curves(base, task, chosen["starts"], rows)]
    thetas = {
        "learned": best_theta(rows, "train"),
        "adam8": search.best([SearchResult.from_json(one) for one in mine], "train").theta,
    }
    return [
        *listed,
        item(
            "fig6",
            "timing",
            "timing",
            base,
            theta=thetas["learned"],
            adam8=thetas["adam8"],
            baselines=list(TUNED),
        ),
    ]


def tasks_of(chosen: Mapping[str, Any]) -> range:
    first = config_of(chosen["base"]).evaluation.seed
    return range(first, first + chosen["tasks"])


def curves(base: Settings, task: int, starts: int, rows: Sequence[Mapping[str, Any]]) -> list[Record]:
    """Every optimizer on one task, from several initialisations."""
    mine = of_kind(rows, "fig6", "search")
    listed = []
    for tuned_for, shown in TUNED_FOR.items():
        settings: dict[str, Record] = {
            f"learned ({tuned_for})": {"optimizer": "learned", "theta": best_theta(rows, tuned_for)}
        }
        settings[f"adam8 ({shown})"] = {
            "optimizer": "adam8",
            "theta": search.best([SearchResult.from_json(one) for one in mine], shown).theta,
        }
        for name in TUNED:
            settings[f"{name} ({tuned_for})"] = {"optimizer": name, "rate": best_rate(rows, name, task, tuned_for)}
        for name, what in settings.items():
            fields = {"name": name, "task": task, "starts": starts, "theta": None, "rate": None, **what}
            listed.append(item("fig6", "curve", f"curve-{name}-{task}".replace(" ", ""), base, **fields))
    return listed


def best_rate(rows: Sequence[Mapping[str, Any]], name: str, task: int, loss: str) -> float:
    grid = next(r for r in of_kind(rows, "fig6", "grid") if (r["optimizer"], r["task"]) == (name, task))
    best = LossTable.of_rates(grid["rates"], np.transpose([grid[loss]])).best_settings()[0]
    assert best.rate is not None, "the table is one of rates"
    return best.rate


def perform(record: Mapping[str, Any], train: Train) -> Record:
    if record["kind"] == "search":
        done = run_draw(evaluator_of(tuple(record["settings"])), SearchJob.from_json(record))
        return {**record, **done.to_json(), "item": record["item"]}
    return {"grid": grid, "curve": curve, "timing": timing}[record["kind"]](record)


def grid(record: Mapping[str, Any]) -> Record:
    """Mean losses of one baseline at every rate."""
    evaluator = evaluator_of(tuple(record["settings"]))
    rates = grid_rates(evaluator.config.evaluation)
    runs = [evaluator.run(UnrollJob(record["optimizer"], record["task"], rate=rate)) for rate in rates]
    return row(
        record,
        rates=rates,
        **{loss: rounded([run.mean(loss) for run in runs]) for loss in ("train", "valid", "test")},
    )


def curve(record: Mapping[str, Any]) -> Record:
    """Learning curves [initialisations, points] of one optimizer on one task, and their means."""
    evaluator = evaluator_of(tuple(record["settings"]))
    what = [record[key] for key in ("rate", "theta")]
    runs = [evaluator.run(UnrollJob(record["optimizer"], record["task"], k, *what)) for k in range(record["starts"])]
    lines = {loss: rounded([run.curves.of(loss) for run in runs], 4) for loss in ("train", "test")}
    means = {f"mean_{loss}": rounded([run.mean(loss) for run in runs]) for loss in ("train", "test")}
    return row(record, steps=list(runs[0].steps), **lines, **means)


def timing(record: Mapping[str, Any]) -> Record:
    job = TimingJob(record["theta"], tuple(record["baselines"]), record["adam8"])
    timed = evaluator_of(tuple(record["settings"])).time(job)
    return row(record, seconds=rounded(timed.seconds), quartiles=rounded(timed.quartiles))


def means(rows: Sequence[Mapping[str, Any]], name: str, loss: str) -> np.ndarray:
    """[tasks] mean over steps and initialisations."""
    found = sorted((r for r in of_kind(rows, "fig6", "curve") if r["name"] == name), key=lambda r: r["task"])
    return np.array([np.mean(r[f"mean_{loss}"]) for r in found])


def seconds(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Per inner step, by optimizer."""
    return dict(of_kind(rows, "fig6", "timing")[0]["seconds"])


def means_in_time(rows: Sequence[Mapping[str, Any]], name: str, loss: str) -> np.ndarray:
    """[tasks] mean loss over the seconds in which the fastest optimizer makes all its steps."""
    found = sorted((r for r in of_kind(rows, "fig6", "curve") if r["name"] == name), key=lambda r: r["task"])
    cost, steps = seconds(rows), found[0]["steps"]
    instants = np.linspace(0, min(cost.values()) * steps[-1], 200)
    own = np.array(steps) * cost[found[0]["optimizer"]]
    return np.array([np.mean([np.interp(instants, own, line) for line in r[loss]]) for r in found])


def comparisons(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, Interval, int]]:
    """(baseline, what, mean difference baseline - learned over tasks, tasks won)."""
    table = []
    for tuned_for, shown in TUNED_FOR.items():
        for name in (*TUNED, "adam8"):
            rival = f"{name} ({shown if name == 'adam8' else tuned_for})"
            for what, measure in (("steps", means), ("seconds", means_in_time)):
                gap = measure(rows, rival, shown) - measure(rows, f"learned ({tuned_for})", shown)
                table.append((rival, f"{shown} loss over {what}", bootstrap(gap), int((gap > 0).sum())))
    return table


def verdict(rows: Sequence[Mapping[str, Any]]) -> Verdict:
    table = comparisons(rows)
    tasks = len({r["task"] for r in of_kind(rows, "fig6", "curve")})
    said = [
        f"{rival}, {what}: {gap}, wins {wins} of {tasks} (p = {sign_test(wins, tasks):.2g})"
        for rival, what, gap, wins in table
    ]
    holds = all(gap.low > 0 for _, _, gap, _ in table)
    head = "Baseline minus learned (nats, 95 %): "
    return Verdict(holds, head + "; ".join(said) + ".")


def draw(rows: Sequence[Mapping[str, Any]]) -> Any:
    from common import plotting

    titles = [
        "a  train loss over steps",
        "b  train loss over seconds",
        "c  test loss over steps",
        "d  test loss over seconds",
    ]
    titles += ["e  task by task, train loss", "f  task by task, test loss"]
    figure, panels = plotting.panels(3, 2, titles)
    for k, (tuned_for, shown) in enumerate(TUNED_FOR.items()):
        for axes, scale in zip(panels[2 * k : 2 * k + 2], ("steps", "seconds")):
            _draw_curves(axes, rows, tuned_for, shown, scale)
        _draw_gaps(panels[4 + k], rows, tuned_for, shown)
    return figure


def _draw_curves(axes: Any, rows: Sequence[Mapping[str, Any]], tuned_for: str, shown: str, scale: str) -> None:
    from common import plotting

    names = {f"{name} ({tuned_for})": plotting.COLOURS[name] for name in TUNED}
    names |= {f"adam8 ({shown})": plotting.COLOURS["adam8"]}
    names |= {
        f"learned ({t})": plotting.COLOURS[f"learned ({t})"] for t in (TUNED_FOR if shown == "test" else ("train",))
    }
    for name, colour in names.items():
        found = [r for r in of_kind(rows, "fig6", "curve") if r["name"] == name]
        lines = np.mean([r[shown] for r in found], axis=0)  # [initialisations, points], over tasks
        x = np.array(found[0]["steps"]) * (seconds(rows)[found[0]["optimizer"]] if scale == "seconds" else 1)
        axes.plot(x, np.median(lines, axis=0), color=colour, label=name, linewidth=1.2)
        axes.fill_between(x, *np.percentile(lines, [25, 75], axis=0), color=colour, alpha=0.25, linewidth=0)
    plotting.label(axes, {"steps": "inner step", "seconds": "seconds"}[scale], f"{shown} loss")


def _draw_gaps(axes: Any, rows: Sequence[Mapping[str, Any]], tuned_for: str, shown: str) -> None:
    from common import plotting

    for name in ("adam", "adam8"):
        rival = f"{name} ({shown if name == 'adam8' else tuned_for})"
        gap = means(rows, rival, shown) - means(rows, f"learned ({tuned_for})", shown)
        axes.hist(
            gap,
            bins=12,
            color=plotting.COLOURS[name],
            alpha=0.5,
            label=f"{rival}: {int((gap > 0).sum())} of {len(gap)} won",
        )
    axes.axvline(0, color=plotting.INK, linewidth=0.8)
    plotting.label(axes, f"baseline - learned ({tuned_for}), mean {shown} loss", "tasks")
