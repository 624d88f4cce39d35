"""The figures of the unroll engine and their targets. A figure's code is imported when it is measured."""

from workers.bench.figure import Figure

PRODUCT = "inner gradient in a loop, operations per second over those of the best matrix product: "
STEPS = "losses and outer gradient over losses only, "
FAMILY = "inner step over one jitted in a Python loop, preset "
OPTIMIZER = "inner step with the learned optimizer over one with optax.adam, "

FIGURES = (
    Figure(
        "gradient-paper",
        PRODUCT + "paper's network, batch 128, strides 2,1,1",
        "",
        "workers.bench.gradients:paper",
        9,
        0.55,
    ),
    Figure(
        "gradient-quickstart",
        PRODUCT + "quickstart's network, batch 32, strides 2,2,1",
        "",
        "workers.bench.gradients:quickstart",
        9,
        0.40,
        quick=True,
    ),
    Figure(
        "against-direct",
        "inner gradient with direct convolutions over ours, with Winograd's, paper's network",
        "x",
        "workers.bench.gradients:against_direct",
        7,
    ),
    Figure(
        "against-loop",
        "inner step with XLA's convolution, jitted, in a Python loop over ours, paper's network",
        "x",
        "workers.bench.gradients:against_loop",
        3,
        1.2,
    ),
    Figure(
        "outer-gradient",
        STEPS + "quickstart's network, window 100, as at every window whose tapes are kept (counted: 3)",
        "forward steps",
        "workers.bench.unrolls:kept",
        7,
        4.2,
        at_most=True,
        quick=True,
    ),
    Figure(
        "outer-gradient-long",
        STEPS + "quickstart's network, 4 of 5 segments recomputed (counted: up to 4)",
        "forward steps",
        "workers.bench.unrolls:recomputed",
        3,
        5.2,
        at_most=True,
    ),
    Figure(
        "outer-gradient-paper",
        STEPS + "paper's network, all tapes kept without activations, as at window 500 (counted: 3.7)",
        "forward steps",
        "workers.bench.unrolls:paper_kept",
        3,
        4.2,
        at_most=True,
    ),
    Figure(
        "pair",
        "one antithetic pair with both estimators over one forward unroll, window 100",
        "forward steps",
        "workers.bench.unrolls:pair",
        5,
        8.4,
        at_most=True,
        quick=True,
    ),
    Figure(
        "against-recomputing",
        "outer gradient with activations recomputed over ours, window 100, quickstart's network",
        "x",
        "workers.bench.unrolls:against_recomputing",
        5,
    ),
    Figure(
        "learned-optimizer",
        OPTIMIZER + "paper's network",
        "x",
        "workers.bench.gradients:learned_against_adam",
        5,
        1.05,
        at_most=True,
    ),
    Figure(
        "learned-optimizer-quickstart",
        OPTIMIZER + "quickstart's network",
        "x",
        "workers.bench.gradients:learned_against_adam_quickstart",
        9,
        1.75,
        at_most=True,
        quick=True,
    ),
    *(
        Figure(f"family-{name}", FAMILY + name, "x", f"workers.bench.families:{name}", 5, 1.3, at_most=True)
        for name in ("residual", "autoencoder", "recurrent", "transformer")
    ),
    Figure(
        "rounding",
        "error of the float32 outer gradient against float64, window 50, random theta",
        "%",
        "workers.bench.unrolls:rounding",
        3,
        at_most=True,
    ),
    Figure(
        "memory",
        "peak memory of a pair above the idle worker, paper's network, from the window on that fills the bound on tapes",
        "MB",
        "workers.bench.memory:of_a_pair",
        1,
        400,
        at_most=True,
    ),
    Figure(
        "compilations",
        "XLA compilations in 8 windows with jitter after the first one",
        "",
        "workers.bench.processes:compilations",
        1,
        0,
        at_most=True,
    ),
    Figure(
        "two-workers",
        "inner steps per second of 2 workers on 2 cores over those of 1",
        "x",
        "workers.bench.processes:two_workers",
        3,
        1.85,
        pinned=False,
    ),
)
