"""The picture of Figure 2."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from common import plotting
from workers.figures.fig2 import Adam, Toy, toys
from workers.figures.figure import Results, of_kind
from workers.figures.landscape import Plane, Slice


def draw(results: Results) -> Figure:
    slices, planes = of_kind(results, Slice), of_kind(results, Plane)
    titles = ["a  inner loss", "b  w over steps, by momentum"]
    titles += [f"c  {shown} over {toy.varied}" for toy in toys(results) for shown in ("final loss", "slope")]
    titles += ["d  MLP under Adam: two projections"]
    titles += ["e  learned optimizer: slice"] if slices else []
    titles += [f"f  plane, T = {steps}" for steps in planes[0].steps] if planes else []
    figure, panels = plotting.panels(3, (len(titles) + 2) // 3, titles)
    left = iter(panels)
    _draw_paths(next(left), next(left), toys(results)[0])
    for toy in toys(results):
        _draw_toy(next(left), next(left), toy)
    _draw_adam(next(left), next(adam for adam in of_kind(results, Adam) if adam.projection is not None))
    if slices:
        _draw_slice(next(left), slices[0])
    if planes:
        _draw_planes(list(left), planes)
    return figure


def _draw_paths(loss: Axes, paths: Axes, toy: Toy) -> None:
    w = np.linspace(-1.4, 4.4, 300)
    loss.plot(w, (w - 4) * (w - 3) * w**2, color=plotting.INK)
    loss.plot(-1.2, 5.2 * 4.2 * 1.44, "*", color=plotting.PALETTE[1], markersize=12)
    plotting.label(loss, "w", "loss")
    for k, path in enumerate(toy.path):
        paths.plot(path, color=plotting.shade(len(toy.path) - 1 - k, len(toy.path)), linewidth=0.7)
    plotting.label(paths, "inner step", "w (yellow: no momentum)")


def _draw_toy(losses: Axes, slopes: Axes, toy: Toy) -> None:
    for k, (steps, final, slope) in enumerate(zip(toy.steps, toy.final, toy.slope)):
        style = {"color": plotting.shade(k, len(toy.steps)), "linewidth": 0.9}
        losses.plot(toy.values(), final, label=f"T = {steps}", **style)
        slopes.plot(toy.values(), np.maximum(np.asarray(slope, float), 1e-6), **style)
    slopes.set_yscale("log")
    for axes in (losses, slopes):
        axes.set_xlim(max(toy.lowest, 0.4 * toy.highest), toy.highest)
    plotting.label(losses, toy.varied, "loss after T steps")
    plotting.label(slopes, toy.varied, "absolute derivative of that loss")


def _draw_adam(axes: Axes, adam: Adam) -> None:
    paths = np.asarray(adam.projection)
    for k, path in enumerate(paths):
        axes.plot(path[:, 0], path[:, 1], color=plotting.shade(k, len(paths)), linewidth=0.8)
        axes.plot(*path[-1], ".", color=plotting.shade(k, len(paths)), markersize=4)
    plotting.label(axes, f"colour: learning rate {adam.low} to {adam.high}", "")


def _draw_slice(axes: Axes, one: Slice) -> None:
    for k, (steps, line) in enumerate(zip(one.steps, one.losses)):
        axes.plot(one.grid(), line, color=plotting.shade(k, len(one.steps)), label=f"T = {steps}")
    plotting.label(axes, "along the outer gradient", "mean validation loss")


def _draw_planes(panels: Sequence[Axes], planes: Sequence[Plane]) -> None:
    rows = sorted(planes, key=lambda plane: plane.row)
    extent = (-rows[0].width, rows[0].width, -rows[0].width, rows[0].width)
    for axes, k in zip(panels, range(len(rows[0].steps))):
        axes.imshow([row.losses[k] for row in rows], origin="lower", extent=extent, cmap="viridis", aspect="auto")
        axes.grid(False)
        plotting.label(axes, "outer gradient", "random direction")
