"""The catalogue of figures: order, names, scales, and every figure from jobs to a picture."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.figures import train
from helpers.tasks import TINY

from common.errors import UserError
from workers.evaluation.search import RANGES, Plan, Rung
from workers.figures import (
    allocation,
    catalogue,
    estimators,
    fig2,
    fig3,
    fig4,
    fig5,
    fig6,
    fig7,
    fig8,
    mixtures,
    probing,
    searches,
    staleness,
)
from workers.figures.landscape import Grid

COMMITTED = Path(__file__).parent.parent / "docs" / "figures"
OTHERS = ("long", "wallclock", "headline")
FOLDERS = {"mini": COMMITTED, **{scale: COMMITTED / scale for scale in OTHERS}}
COMPUTED = tuple(name for name in catalogue.NAMES if (COMMITTED / f"{name}.jsonl").exists())
LATER = [  # figures of the other scales, which take hours, so that some of today's jobs may have no result yet
    (scale, name)
    for scale in OTHERS
    for name in catalogue.chosen(("all",), scale)
    if (FOLDERS[scale] / f"{name}.jsonl").exists()
]
ALL = [
    *(("mini", name) for name in COMPUTED),
    *((s, name) for s, name in LATER if (FOLDERS[s] / f"{name}.json").exists()),
]


def committed(*names, scale="mini"):
    folder = FOLDERS[scale]
    return [json.loads(line) for name in names for line in (folder / f"{name}.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("scale, name", ALL)
def test_committed_results_give_the_committed_outcome(scale, name):
    outcome = catalogue.outcome(name, committed(*catalogue.needs(name, scale), name, scale=scale))
    assert outcome._asdict().items() <= json.loads((FOLDERS[scale] / f"{name}.json").read_text()).items()


@pytest.mark.parametrize("scale, name", LATER)
def test_committed_results_of_other_scales_are_todays(scale, name):
    own = committed(name, scale=scale)
    before = committed(*catalogue.needs(name, scale), scale=scale)
    known = {job["item"] for job in catalogue.jobs(name, scale, before + own)}
    assert own and {result["item"] for result in own} <= known


@pytest.mark.parametrize("name", COMPUTED)
def test_committed_results_are_those_of_todays_jobs(name):
    """A name ends in a digest of all that decides the result: no setting has changed since."""
    own = committed(name)
    jobs = catalogue.jobs(name, "mini", committed(*catalogue.needs(name)) + own)
    assert sorted(job["item"] for job in jobs) == sorted(result["item"] for result in own)


@pytest.mark.parametrize("name", COMPUTED)
def test_parsed_results_write_the_same_json(name):
    for result in committed(name):
        written = json.loads(json.dumps(catalogue.parse([result])[0].to_json()))
        assert written == {key: value for key, value in result.items() if value is not None}


def test_figures_without_committed_results_are_named_as_missing():
    said = (COMMITTED.parent / "results.md").read_text()
    for name in set(catalogue.NAMES) - set(COMPUTED):
        assert f"`outertrain reproduce {name}` has not been run" in said


@pytest.fixture
def tiny(monkeypatch):
    """Scales of a few seconds."""
    grid = Grid(3, 0.1, [2, 6], 2)
    for toy in ("TOY", "TOY_RATE"):
        monkeypatch.setattr(fig2, toy, replace(getattr(fig2, toy), points=61, drawn=5, steps=[5, 50]))
    monkeypatch.setattr(fig2, "ADAM", replace(fig2.ADAM, rates=5, steps=8, problems=3))
    short = {"windows": [2, 6], "total": 200, "seeds": 2, "gradients": [2], "problems": 2, "rates": [0.001, 0.01]}
    scales = {
        fig2: fig2.Scale(TINY, grid, grid),
        fig3: fig3.SCALES["mini"]._replace(
            base=(*TINY, *fig3.PLAIN, "optimizer.family=adam", "optimizer.hidden=32"), **short
        ),
        fig4: fig4.Scale([2, 6], 3),
        fig5: fig5.Scale(TINY, seeds=2, points=2, tasks=2),
        fig6: fig6.Scale(
            TINY,
            tasks=2,
            starts=2,
            plans=tuple(Plan(3, (Rung(1, 1), Rung(1, 1)), family=name) for name in RANGES),
            timings=2,
        ),
        fig7: fig7.Scale(TINY, digits=("task.units=[3]",), problems=1, starts=2, elsewhere={"same": ()}),
        fig8: fig8.SCALES["mini"]._replace(base=TINY, windows=[2, 6], growing=(2, 4), budget=600, tasks=2),
        searches: searches.SCALES["mini"]._replace(
            base=TINY,
            plans=tuple(Plan(3, (Rung(1, 1), Rung(1, 1)), family=name) for name in RANGES),
            outer=("optimizer.family=adam8", "outer.updates=2"),
            seeds=1,
            tasks=2,
            block=2,
        ),
        probing: probing.Scale(TINY, seeds=2, points=2, tasks=2),
        staleness: staleness.Scale(TINY, (1, 4), {}, seeds=2, points=2, tasks=2),
        estimators: estimators.Scale({"tiny": estimators.Inner(TINY, 6, 20)}, (0.2, 1.0)),
        allocation: allocation.Scale(
            {"tiny": allocation.Regime(TINY, {"merged": (), "allocation": allocation.ALLOCATE}, explodes=True)}, 2, 2, 2
        ),
        mixtures: mixtures.Scale(
            {name: mixtures.Variant(TINY, 3) for name in mixtures.SCALES["mini"].variants}, TINY, 2, 2, 2
        ),
    }
    for module, scale in scales.items():
        monkeypatch.setitem(module.SCALES, "mini", scale)


def complete(name, results):
    """All results of a figure, computed stage by stage as the driver does it."""
    mine = []
    while True:
        known = {result["item"] for result in mine}
        missing = [job for job in catalogue.jobs(name, "mini", results + mine) if job["item"] not in known]
        if not missing:
            return mine
        mine += [json.loads(json.dumps(catalogue.perform(json.loads(json.dumps(job)), train))) for job in missing]


@pytest.mark.slow
def test_every_figure_runs_from_jobs_to_a_picture(tiny, tmp_path):
    results = []
    for name in catalogue.order(catalogue.NAMES):
        mine = complete(name, results)
        assert {result["figure"] for result in mine} == {name}
        assert len({result["item"] for result in mine}) == len(mine)
        results += mine
    for name in catalogue.NAMES:
        outcome = catalogue.outcome(name, results)
        assert len(outcome.sentence) > 80 and "nan" not in outcome.sentence
        figure = catalogue.draw(name, results)
        assert all(axes.has_data() for axes in figure.axes if axes.get_visible())
        figure.savefig(tmp_path / f"{name}.png")
        assert (tmp_path / f"{name}.png").stat().st_size > 10_000


@pytest.mark.parametrize("name", COMPUTED)
def test_picture_of_committed_results_labels_its_panels(name):
    figure = catalogue.draw(name, committed(*catalogue.needs(name), name))
    shown = [axes for axes in figure.axes if axes.get_visible()]
    assert shown and all(axes.get_title("left") and (axes.get_xlabel() or axes.get_ylabel()) for axes in shown)


@pytest.mark.parametrize("name", catalogue.chosen(("all",), "paper"))
def test_paper_scale_jobs_have_names_of_their_own(name):
    listed = catalogue.jobs(name, "paper", [])
    assert bool(listed) == (name not in {"fig4", "fig7"})  # all jobs of these two need a theta that fig5 learned
    assert len({job["item"] for job in listed}) == len(listed)


def test_unknown_figures_and_scales_are_user_errors():
    with pytest.raises(UserError, match="no figure 'fig9'"):
        catalogue.jobs("fig9", "mini", [])
    with pytest.raises(UserError, match="no figure 'fig9'"):
        catalogue.chosen(("fig2", "fig9"), "mini")
    with pytest.raises(UserError, match="no scale 'huge'"):
        catalogue.chosen(("fig2",), "huge")


def test_figure_without_the_papers_scale_is_refused_at_once():
    with pytest.raises(UserError, match=r"staleness has no scale 'paper': choose --scale mini"):
        catalogue.chosen(("fig5", "staleness"), "paper")
    assert set(catalogue.chosen(("all",), "mini")) - set(catalogue.chosen(("all",), "paper")) == {
        "searches",
        "staleness",
        "estimators",
        "allocation",
        "mixtures",
    }
    assert catalogue.chosen(("fig5", "staleness"), "mini") == ("fig5", "staleness")
    with pytest.raises(UserError, match=r"fig5 has no scale 'long': choose --scale mini or wallclock or paper"):
        catalogue.chosen(("fig5",), "long")
    assert catalogue.chosen(("all",), "long") == ("fig4", "fig8")


def test_order_puts_needed_figures_first():
    assert catalogue.order(["fig6", "fig3"]) == ["fig5", "fig6", "fig3"]
    assert catalogue.order(["fig4"], "long") == ["fig8", "fig4"]
    names = catalogue.order(catalogue.NAMES)
    assert sorted(names) == sorted(catalogue.NAMES)
    assert all(names.index(n) < names.index(name) for name in names for n in catalogue.needs(name))


def test_placed_job_keeps_its_name_and_finds_its_images():
    record = {"item": "a", "settings": ["mini"], "judge": ["mini", "seed=1"], "task": 1}
    override = "dataset.path=/data"
    moved = catalogue.placed(record, "/data")
    assert moved == {**record, "settings": ["mini", override], "judge": ["mini", "seed=1", override]}
