"""The report: complete for a finished run, honest for an unfinished one, self-contained, and careful with files."""

import base64
import re
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from helpers import run_files

from cluster.report import plots
from cluster.report.canvas import column, smooth
from cluster.report.page import gather, write_report
from cluster.report.plots import PLOTS, Material
from common.config import Config
from common.errors import UserError
from common.update_record import UNKNOWN, Quantiles
from learner.lineage import Position, claim

PNG = b"\x89PNG\r\n"


class Page(HTMLParser):
    """Tags, references and text of a page; void elements need no end."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.images: list[str] = []
        self.references: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag == "img":
            assert values["alt"]
            self.images.append(values["src"] or "")
        self.references += [v for k, v in attrs if k in ("href", "src") and v and tag != "img"]
        if tag not in ("img", "meta"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "night <1>"
    evaluated = run_files.unrolls(tasks=4, starts=2, baselines=("adam", "sgd"))
    run = run_files.write_run(folder, run_files.history(30), evaluated, Config())
    write_report(run)
    return run


def test_a_finished_run_has_every_picture(finished: Path) -> None:
    names = {p.stem for p in (finished / "report").glob("*.png")}
    assert names == {plot.name for plot in PLOTS}
    assert all((finished / "report" / f"{n}.png").read_bytes().startswith(PNG) for n in names)


def test_the_page_is_well_formed_and_needs_nothing_else(finished: Path) -> None:
    page = Page((finished / "report" / "index.html").read_text())
    assert page.open == [] and page.references == []
    assert len(page.images) == len(PLOTS)
    assert all(base64.b64decode(src.removeprefix("data:image/png;base64,")).startswith(PNG) for src in page.images)
    assert "night <1>" in page.text


def test_the_page_tells_the_numbers_of_the_comparison(finished: Path) -> None:
    material = gather(finished, Config())
    assert material.comparison is not None
    adam = next(b for b in material.comparison.baselines if b.optimizer == "adam")
    text = Page((finished / "report" / "index.html").read_text()).text
    assert f"{material.comparison.learned.mean() / adam.per_task.mean():.2f}of the loss of Adam" in text
    assert "4 of 4unseen tasks won against Adam" in text
    assert f"{adam.single.mean():.4f}" in text and "0.032 for all" in text
    assert "1003" in text  # the table of tasks
    assert "batch_samples = 8" in text  # the configuration
    assert "30outer updates" in text and "accepted24098.8%" in text


def test_a_run_that_has_only_begun_has_a_page(tmp_path: Path) -> None:
    page = write_report(run_files.write_run(tmp_path / "r", [], [], Config()))
    text = Page(page.read_text()).text
    assert "No outer update has been recorded yet" in text and "outertrain evaluate" in text
    assert list(page.parent.glob("*.png")) == []


def test_a_run_of_one_update_that_was_never_evaluated(tmp_path: Path) -> None:
    lonely = [record._replace(var_rp=UNKNOWN) for record in run_files.history(1)]
    page = write_report(run_files.write_run(tmp_path / "r", lonely, [], Config()))
    names = {p.stem for p in page.parent.glob("*.png")}
    assert names == {"outer_loss", "outer_loss_time", "variances", "weights", "windows", "staleness", "norms"}


def test_what_a_dead_learner_wrote_past_the_checkpoint_is_left_out(tmp_path: Path) -> None:
    lines = run_files.history(4)
    run = run_files.write_run(tmp_path / "r", [*lines, *(line._replace(epoch=2) for line in lines[2:3])], [], Config())
    claim(run / "epochs", Position(1, 2), 0.0)
    assert [(r.epoch, r.version) for r in gather(run, Config()).history] == [(1, 1), (1, 2), (2, 3)]


def test_no_run_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no run \(config.toml is missing\)"):
        write_report(tmp_path)


def test_a_report_that_cannot_be_written_is_a_sentence_and_touches_nothing(tmp_path: Path) -> None:
    run = run_files.write_run(tmp_path / "r", [], [], Config())
    (run / "report").write_text("a file in the way")
    before = {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}
    with pytest.raises(UserError, match=r"cannot write the report into .*report \(file exists\).*again"):
        write_report(run)
    assert {p: p.read_bytes() for p in run.rglob("*") if p.is_file()} == before


def test_every_axis_has_a_label(finished: Path) -> None:
    material = gather(finished, Config())
    for plot in PLOTS:
        figure = plot.draw(material)
        assert figure is not None
        for axes in figure.axes:
            assert axes.get_xlabel() and axes.get_ylabel(), plot.name


def test_time_is_shown_in_a_unit_of_its_size(finished: Path) -> None:
    history = run_files.history(5)
    for scale, unit in ((1, "seconds"), (100, "minutes"), (3000, "hours")):
        longer = [record._replace(seconds=record.seconds * scale) for record in history]
        figure = plots.outer_loss_time(Material(longer, [], None, "train"))
        assert figure is not None and figure.axes[0].get_xlabel().endswith(f"({unit})")


def test_differences_are_positive_where_the_learned_optimizer_is_better(finished: Path) -> None:
    figure = plots.differences(gather(finished, Config()))
    assert figure is not None
    assert [t.get_text() for t in figure.axes[0].get_legend().get_texts()] == [
        "Adam (4 of 4 won)",
        "SGD + momentum (4 of 4 won)",
    ]
    corners = np.concatenate([patch.get_path().vertices for patch in figure.axes[0].patches])
    assert corners[corners[:, 1] > 0, 0].min() >= 0 and corners[:, 1].max() <= 4


def test_variances_up_to_the_largest_number_can_be_drawn() -> None:
    largest = float(np.finfo(float).max)
    history = run_files.history(6)
    norms = history[3].norms._replace(gradient=largest)
    history[3] = history[3]._replace(var_rp=Quantiles(*[largest] * 5), norms=norms)
    for draw in (plots.variances, plots.norms):
        figure = draw(Material(history, [], None, "train"))
        assert figure is not None
        figure.savefig(BytesIO(), format="png")


def test_the_running_median_ignores_outliers_and_gaps() -> None:
    values = np.array([1.0, 1.0, 100.0, 1.0, np.nan, 1.0, 1.0])
    assert smooth(values).tolist() == [1.0] * 7


def test_a_column_of_something_not_measured_is_nan() -> None:
    known, other = run_files.history(2)
    cells = column([known, other._replace(var_rp=UNKNOWN)], lambda r: r.var_rp.q50)
    assert cells[0] == known.var_rp.q50 and np.isnan(cells[1])


def test_the_page_holds_the_run_s_own_numbers_not_a_machine_s(finished: Path) -> None:
    text = (finished / "report" / "index.html").read_text()
    assert str(finished.parent) not in text
    assert re.search(r"https?://", text) is None
