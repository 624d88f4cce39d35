"""The picture of Figure 5."""

from matplotlib.figure import Figure

from common import plotting
from workers.figures.fig5 import OBJECTIVES, SPLITS, best_training, curves, tuned_adam
from workers.figures.figure import Results

CLASSES = {"outer_train": "outer-train classes", "outer_test": "unseen classes"}


def draw(results: Results) -> Figure:
    figure, panels = plotting.panels(1, 2, [f"{objective} objective" for objective in OBJECTIVES])
    for axes, objective in zip(panels, OBJECTIVES):
        best = best_training(results, objective)
        for split, style in zip(SPLITS, ("-", "--")):
            for seed, curve in curves(results, objective).items():
                shown = best is not None and seed == best.seed
                colour, name = plotting.PALETTE[int(shown)], CLASSES[split] if shown else None
                losses = curve.of(split).mean(axis=1)
                axes.plot(curve.versions, losses, style, color=colour, linewidth=1, label=name)
            level = tuned_adam(results, objective, split).mean()
            axes.axhline(level, color=plotting.INK, linestyle=style, linewidth=0.8)
            axes.set_ylim(0.8 * level, 1.4 * level)  # some starts are far above
        plotting.label(axes, "outer updates", f"mean {objective} loss (black: tuned Adam)")
    return figure
