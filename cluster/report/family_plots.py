"""The report's pictures of the families of a mixture, drawn from the history."""

from collections.abc import Callable
from typing import Final

import numpy as np
from matplotlib.figure import Figure

from cluster.report.material import Material, Plot
from cluster.report.training_plots import logarithmic, smooth
from common.plotting import BLUE, GREEN, GREY, VERMILION, VIOLET, legend_above, single
from common.update_record import FamilyRecord

LINES: Final = (BLUE, VERMILION, GREEN, VIOLET, GREY)  # in turn
STYLES: Final = ("-", "--", ":")  # the next one when all colours are used


def by_family(
    value: Callable[[FamilyRecord], float | None], ylabel: str, *, log: bool = False
) -> Callable[[Material], Figure | None]:
    """The picture of one number of each family over the outer updates; None for a run without a mixture."""

    def draw(material: Material) -> Figure | None:
        names = sorted({name for record in material.history for name in record.families})
        if not names:
            return None
        figure, axes = single("outer updates", ylabel)
        for k, name in enumerate(names):
            points = [(r.version, value(r.families[name])) for r in material.history if name in r.families]
            versions, values = np.asarray(points, float).T
            style = STYLES[k // len(LINES) % len(STYLES)]
            shown = smooth(logarithmic(values) if log else values)
            axes.plot(versions, shown, style, color=LINES[k % len(LINES)], label=name)
        if log:
            axes.set_yscale("log")
        legend_above(axes)
        return figure

    return draw


_ONE = "Running median over the updates whose batch held the family."
FAMILY_PLOTS: Final = (
    Plot(
        "family_loss",
        "Outer loss by family",
        f"In units of each family's normalizer. {_ONE}",
        by_family(lambda family: family.loss, "outer loss / normalizer"),
    ),
    Plot(
        "family_weight",
        "Merge weight by family",
        f"Of rp, as the pairs of one family alone would give it; the merge pools the variances of all. {_ONE}",
        by_family(lambda family: family.weight_rp, "merge weight of rp"),
    ),
    Plot(
        "family_var_rp",
        "Variance of rp by family",
        f"Of one pair, median over coordinates. {_ONE}",
        by_family(lambda family: family.var_rp, "variance of one pair (1 / theta²)", log=True),
    ),
    Plot(
        "family_var_es",
        "Variance of es by family",
        f"Of one pair, median over coordinates. {_ONE}",
        by_family(lambda family: family.var_es, "variance of one pair (1 / theta²)", log=True),
    ),
)
