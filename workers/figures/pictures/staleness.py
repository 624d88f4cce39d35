"""The picture of staleness."""

from matplotlib.figure import Figure

from common import plotting
from workers.figures.figure import Results
from workers.figures.staleness import by_case, costs, curves, named, staleness


def draw(results: Results) -> Figure:
    titles = ["loss along outer-training, mean of the seeds", "loss at the end, minus that with fresh samples"]
    figure, panels = plotting.panels(1, 2, titles)
    table, gaps = by_case(results), costs(results)
    for k, (case, trainings) in enumerate(table.items()):
        colour = plotting.PALETTE[k % len(plotting.PALETTE)]
        line = "--" if case[1] else "-"
        panels[0].plot(trainings[0].kept, curves(trainings).mean(axis=0), line, color=colour, label=named(case))
        if case in gaps:
            gap = gaps[case]
            place, error = staleness(trainings), [[gap.value - gap.low], [gap.high - gap.value]]
            panels[1].errorbar([place], [gap.value], yerr=error, fmt="s" if case[1] else "o", color=colour)
    panels[1].axhline(0, color=plotting.INK, linewidth=0.6)
    plotting.label(panels[0], "outer updates", "mean train loss on fixed tasks")
    plotting.label(panels[1], "staleness of the applied samples (updates)", "difference of the loss (95 % intervals)")
    return figure
