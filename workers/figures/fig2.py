"""Figure 2: with more inner steps the outer loss becomes near-discontinuous (paper section 2.3).

Momentum on (w - 4)(w - 3) w^2; an MLP under Adam at learning rates that differ by a hundredth; slices through the outer
loss of the learned optimizer. All from the project's own unroll.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from math import log
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from common.optimizer import Family, hand_designed
from common.task import TaskFamily
from workers.evaluation import jobs as unrolls
from workers.figures.fig5 import best_theta
from workers.figures.figure import Record, Train, Verdict, evaluator_of, item, of_kind, rounded, row
from workers.figures.statistics import Interval, bootstrap
from workers.unroll import InnerState, OuterLoss, Problem, Unroll, forward_segment, make_step

CLAIM = "With more inner steps the outer loss gets near-discontinuous, for hand-designed and learned optimizers alike."
NEEDS = ("fig5",)

RATE = 0.01  # of the toy; the paper does not give it
TOY: dict[str, Any] = {"momenta": 991, "highest": 0.99, "steps": [5, 10, 20, 50, 100, 200], "drawn": 45}
ADAM: dict[str, Any] = {
    "low": 0.1469,
    "high": 0.1484,
    "rates": 100,
    "steps": 40,
    "problems": 10,
}  # the paper's; 10 problems for error bars
SLICE: dict[str, Any] = {"points": 81, "width": 1.0, "steps": [5, 20, 80, 200], "problems": 8}
PLANE: dict[str, Any] = {"points": 25, "width": 1.0, "steps": [5, 40, 200]}
MLP = ("task.family=mlp", "task.units=[16, 16]", "optimizer.family=mlp")
SCALES: dict[str, dict[str, Any]] = {
    "mini": {"mlp": ("mini", *MLP), "slice": SLICE, "plane": PLANE},
    "paper": {
        "mlp": ("paper", *MLP),
        "slice": {**SLICE, "points": 401, "steps": [5, 10, 20, 100, 1000], "problems": 20},
        "plane": {**PLANE, "points": 101, "steps": [5, 100, 1000]},
    },
}


def items(scale: str, rows: Sequence[Mapping[str, Any]]) -> list[Record]:
    chosen = SCALES[scale]
    listed = [item("fig2", "toy", "momentum", rate=RATE, **TOY)]
    listed += [item("fig2", "adam", f"adam{k}", chosen["mlp"], problem=k, **ADAM) for k in range(ADAM["problems"])]
    theta = best_theta(rows, "valid")
    if theta is None:
        return listed
    settings = (*chosen["mlp"], "estimator.objective=valid", "estimator.outer_batches=1")
    options, plane = chosen["slice"], chosen["plane"]
    for k in range(options["problems"]):
        listed.append(item("fig2", "slice", f"slice{k}", settings, theta=theta, problem=k, **options))
    for r in range(plane["points"]):
        listed.append(item("fig2", "plane", f"plane{r}", settings, theta=theta, problem=0, row=r, **plane))
    return listed


def perform(record: Mapping[str, Any], train: Train) -> Record:
    return {"toy": toy, "adam": adam, "slice": slice_, "plane": plane}[record["kind"]](record)


def unrolled(task: TaskFamily, family: Family, thetas: jax.Array, problem: Problem, key: jax.Array, steps: int) -> Any:
    """Unrolls at many theta [K, P] from one w: the path of w [K, steps + 1, N], unclamped losses [K, steps]."""
    outer_loss = OuterLoss(clamp=float("inf"))
    state = Unroll(task, family, outer_loss, steps).start(problem, key)
    segment = partial(forward_segment, make_step(task, family, outer_loss), steps)
    last, losses, tape = jax.jit(jax.vmap(segment, in_axes=(0, None, None, None)))(thetas, problem, state, steps)
    flat = jax.vmap(lambda w: jnp.concatenate([x.ravel() for x in jax.tree.leaves(w)]))(last.w)
    return jnp.concatenate([tape.w, flat[:, None]], axis=1), losses


def two_minima() -> TaskFamily:
    """(w - 4)(w - 3) w^2 from -1.2."""
    return TaskFamily(
        sample=lambda random, outer_split: {},
        init=lambda key: {"w": jnp.full(1, -1.2)},
        batch=lambda data, key, split: data,
        loss=lambda w, batch: jnp.sum((w["w"] - 4) * (w["w"] - 3) * w["w"] ** 2),
    )


def toy(record: Mapping[str, Any]) -> Record:
    momenta = np.linspace(0, record["highest"], record["momenta"])
    thetas = jnp.stack([jnp.full(len(momenta), record["rate"]), jnp.asarray(momenta)], axis=1)
    sgd = Family(lambda key: thetas[0], hand_designed.sgd, ((2,),))
    problem = Problem({}, jax.random.key(0))
    path, losses = unrolled(two_minima(), sgd, thetas, problem, jax.random.key(0), max(record["steps"]))
    final = np.asarray(losses)[:, np.array(record["steps"]) - 1].T
    chosen = np.linspace(0, len(momenta) - 1, record["drawn"]).round().astype(int)
    drawn = {"momentum": momenta[chosen], "path": np.asarray(path)[chosen, :, 0]}
    return row(record, final=rounded(final), **rounded(drawn, 4))


def adam(record: Mapping[str, Any]) -> Record:
    """Two random projections of the path of an MLP's parameters, and how far neighbouring rates drift apart."""
    evaluator = evaluator_of(tuple(record["settings"]))
    random = np.random.default_rng([record["problem"], 2])
    problem = Problem(evaluator.data(record["problem"], "outer_train"), jax.random.key(int(random.integers(2**32))))
    rates = np.linspace(log(record["low"]), log(record["high"]), record["rates"])
    family = Family(lambda key: jnp.zeros(1), hand_designed.adam, ((1,),))
    thetas = jnp.asarray(rates, jnp.float32)[:, None]
    path, losses = unrolled(evaluator.task, family, thetas, problem, jax.random.key(record["problem"]), record["steps"])
    path, losses = np.asarray(path, np.float64), np.asarray(losses)
    spread = np.linalg.norm(np.diff(path, axis=0), axis=2).mean(axis=0)  # [steps + 1]
    results = {"spread": spread, "final": losses[:, -1], "first": losses[:, 0]}
    if record["problem"] == 0:
        plane = random.normal(size=(path.shape[2], 2)) / np.sqrt(path.shape[2])
        results["projection"] = ((path - path[:1, :1]) @ plane)[::4]
    return row(record, **rounded(results, 4))


def directions(record: Mapping[str, Any], unroll: Unroll, problem: Problem, state: InnerState) -> np.ndarray:
    """Two orthonormal directions [2, P] in theta: that of the outer gradient over few steps, and a random one."""
    theta = unrolls.decode(record["theta"])
    gradient = unroll.losses_and_grad(jnp.asarray(theta), problem, state, record["steps"][0])[1].astype(np.float64)
    other = np.random.default_rng(0).normal(size=len(theta))
    first = gradient / np.linalg.norm(gradient)
    other -= first * (first @ other)
    return np.stack([first, other / np.linalg.norm(other)])


def slice_(record: Mapping[str, Any]) -> Record:
    """Mean validation loss of the first T steps at theta + a direction of the gradient."""
    return row(record, **_losses(record, [(x, 0.0) for x in grid(record)]))


def plane(record: Mapping[str, Any]) -> Record:
    """One row of the plane that the gradient and a random direction span."""
    y = grid(record)[record["row"]]
    return row(record, **_losses(record, [(x, y) for x in grid(record)]))


def grid(record: Mapping[str, Any]) -> np.ndarray:
    return np.linspace(-record["width"], record["width"], record["points"])


def _losses(record: Mapping[str, Any], places: list[tuple[float, float]]) -> Record:
    evaluator = evaluator_of(tuple(record["settings"]))
    start = unrolls.UnrollJob("learned", record["problem"], theta=record["theta"], outer_split="outer_train")
    problem, state, _ = evaluator.start(start)
    unroll, theta = evaluator.unroll("learned"), unrolls.decode(record["theta"])
    axes = directions(record, unroll, problem, state)
    losses = []
    for place in places:
        moved = jnp.asarray(theta + np.asarray(place) @ axes, jnp.float32)
        every = unroll.forward(moved, problem, state, max(record["steps"]))[0]
        losses.append([every[:steps].mean(dtype=np.float64) for steps in record["steps"]])
    return {"losses": rounded(np.transpose(losses))}  # [T, places]


def roughness(losses: np.ndarray) -> float:
    """The largest jump between neighbours as a share of the whole range: 1 / points for a line, 1 for a step."""
    losses = np.asarray(losses, dtype=float)
    return float(np.abs(np.diff(losses)).max() / max(np.ptp(losses), 1e-12))


def verdict(rows: Sequence[Mapping[str, Any]]) -> Verdict:
    toy = of_kind(rows, "fig2", "toy")[0]
    jumps = [roughness(final) for final in toy["final"]]
    parts = [
        f"toy: between momenta {toy['highest'] / (toy['momenta'] - 1):.3g} apart the final loss jumps by at most "
        f"{jumps[0]:.1%} of its range after {toy['steps'][0]} steps, by {jumps[-1]:.0%} after {toy['steps'][-1]}"
    ]
    growth = drift(rows)
    parts.append(
        f"MLP under Adam: neighbouring learning rates are {growth} times farther apart after {ADAM['steps']} steps than after 5"
    )
    holds = jumps[-1] > 10 * jumps[0] and growth.low > 1
    ratio = slices(rows)
    if ratio is not None:
        steps = of_kind(rows, "fig2", "slice")[0]["steps"]
        parts.append(
            f"learned optimizer: the curvature of a slice relative to its range is {ratio} times larger at T = {steps[-1]} than at T = {steps[0]}"
        )
        holds = holds and ratio.low > 1
    return Verdict(bool(holds), "; ".join(parts) + ".")


def drift(rows: Sequence[Mapping[str, Any]]) -> Interval:
    """How much farther apart neighbouring learning rates end than they were after 5 steps; over problems."""
    spreads = np.array([r["spread"] for r in of_kind(rows, "fig2", "adam")])
    return bootstrap(np.log(spreads[:, -1] / spreads[:, 5]), lambda x: float(np.exp(x.mean())))


def slices(rows: Sequence[Mapping[str, Any]]) -> Interval | None:
    """Largest second difference of a slice relative to its range: at the most steps over at the fewest."""
    found = of_kind(rows, "fig2", "slice")
    if not found:
        return None
    values = []
    for r in found:
        bend = [np.abs(np.diff(line, 2)).max() / max(np.ptp(line), 1e-12) for line in np.asarray(r["losses"])]
        values.append(np.log(max(bend[-1], 1e-12) / max(bend[0], 1e-12)))
    return bootstrap(np.array(values), lambda x: float(np.exp(x.mean())))


def draw(rows: Sequence[Mapping[str, Any]]) -> Any:
    from common import plotting

    slices, planes = of_kind(rows, "fig2", "slice"), of_kind(rows, "fig2", "plane")
    titles = [
        "a  inner loss",
        "b  w over steps, by momentum",
        "c  final loss over momentum",
        "d  MLP under Adam: two projections",
    ]
    titles += ["e  learned optimizer: slice"] if slices else []
    titles += [f"f  plane, T = {steps}" for steps in planes[0]["steps"]] if planes else []
    figure, panels = plotting.panels(2, (len(titles) + 1) // 2, titles)
    _draw_toy(panels, of_kind(rows, "fig2", "toy")[0])
    _draw_adam(panels[3], next(r for r in of_kind(rows, "fig2", "adam") if "projection" in r))
    if slices:
        _draw_slice(panels[4], slices[0])
    if planes:
        _draw_planes(panels[5:], planes)
    return figure


def _draw_toy(panels: list[Any], toy: Mapping[str, Any]) -> None:
    from common import plotting

    w = np.linspace(-1.4, 4.4, 300)
    panels[0].plot(w, (w - 4) * (w - 3) * w**2, color=plotting.INK)
    panels[0].plot(-1.2, 5.2 * 4.2 * 1.44, "*", color=plotting.PALETTE[1], markersize=12)
    plotting.label(panels[0], "w", "loss")
    for k, path in enumerate(toy["path"]):
        panels[1].plot(path, color=plotting.shade(len(toy["path"]) - 1 - k, len(toy["path"])), linewidth=0.7)
    plotting.label(panels[1], "inner step", "w (yellow: no momentum)")
    momenta = np.linspace(0, toy["highest"], toy["momenta"])
    for k, (steps, final) in enumerate(zip(toy["steps"], toy["final"])):
        panels[2].plot(momenta, final, color=plotting.shade(k, len(toy["steps"])), linewidth=0.9, label=f"T = {steps}")
    panels[2].set_xlim(0.4, 1)
    plotting.label(panels[2], "momentum", "loss after T steps")


def _draw_adam(axes: Any, adam: Mapping[str, Any]) -> None:
    from common import plotting

    paths = np.asarray(adam["projection"])
    for k, path in enumerate(paths):
        axes.plot(path[:, 0], path[:, 1], color=plotting.shade(k, len(paths)), linewidth=0.8)
        axes.plot(*path[-1], ".", color=plotting.shade(k, len(paths)), markersize=4)
    plotting.label(axes, f"colour: learning rate {adam['low']} to {adam['high']}", "")


def _draw_slice(axes: Any, record: Mapping[str, Any]) -> None:
    from common import plotting

    for k, (steps, line) in enumerate(zip(record["steps"], record["losses"])):
        axes.plot(grid(record), line, color=plotting.shade(k, len(record["steps"])), label=f"T = {steps}")
    plotting.label(axes, "along the outer gradient", "mean validation loss")


def _draw_planes(panels: list[Any], rows: Sequence[Mapping[str, Any]]) -> None:
    from common import plotting

    rows = sorted(rows, key=lambda r: r["row"])
    extent = [-rows[0]["width"], rows[0]["width"]] * 2
    for axes, k in zip(panels, range(len(rows[0]["steps"]))):
        axes.imshow([r["losses"][k] for r in rows], origin="lower", extent=extent, cmap="viridis", aspect="auto")
        axes.grid(False)
        plotting.label(axes, "outer gradient", "random direction")
