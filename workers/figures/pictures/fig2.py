"""The picture of Figure 2."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from common import plotting
from workers.figures.fig2 import Adam, Toy
from workers.figures.figure import Results, of_kind
from workers.figures.landscape import Plane, Slice


def draw(results: Results) -> Figure:
    slices, planes = of_kind(results, Slice), of_kind(results, Plane)
    titles = [
        "a  inner loss",
        "b  w over steps, by momentum",
        "c  final loss over momentum",
        "d  MLP under Adam: two projections",
    ]
    titles += ["e  learned optimizer: slice"] if slices else []
    titles += [f"f  plane, T = {steps}" for steps in planes[0].steps] if planes else []
    figure, panels = plotting.panels(2, (len(titles) + 1) // 2, titles)
    _draw_toy(panels, of_kind(results, Toy)[0])
    _draw_adam(panels[3], next(adam for adam in of_kind(results, Adam) if adam.projection is not None))
    if slices:
        _draw_slice(panels[4], slices[0])
    if planes:
        _draw_planes(panels[5:], planes)
    return figure


def _draw_toy(panels: Sequence[Axes], toy: Toy) -> None:
    w = np.linspace(-1.4, 4.4, 300)
    panels[0].plot(w, (w - 4) * (w - 3) * w**2, color=plotting.INK)
    panels[0].plot(-1.2, 5.2 * 4.2 * 1.44, "*", color=plotting.PALETTE[1], markersize=12)
    plotting.label(panels[0], "w", "loss")
    for k, path in enumerate(toy.path):
        panels[1].plot(path, color=plotting.shade(len(toy.path) - 1 - k, len(toy.path)), linewidth=0.7)
    plotting.label(panels[1], "inner step", "w (yellow: no momentum)")
    momenta = np.linspace(0, toy.highest, toy.momenta)
    for k, (steps, final) in enumerate(zip(toy.steps, toy.final)):
        panels[2].plot(momenta, final, color=plotting.shade(k, len(toy.steps)), linewidth=0.9, label=f"T = {steps}")
    panels[2].set_xlim(0.4, 1)
    plotting.label(panels[2], "momentum", "loss after T steps")


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
