"""The report page: complete for a finished run, partial for an unfinished one, self-contained."""

import base64
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from helpers import run_files

from cluster.report.evaluation_plots import EVALUATION_PLOTS
from cluster.report.material import gather
from cluster.report.page import write_report
from cluster.report.training_plots import TRAINING_PLOTS
from cluster.runs.cost import outer_training_cost, training_seconds
from common.config import Config
from common.errors import UserError
from common.update_record import UNKNOWN
from learner.lineage import Position, claim
from workers.evaluation.comparison import read_evaluation

PNG = b"\x89PNG\r\n"
PLOTS = (*EVALUATION_PLOTS, *TRAINING_PLOTS)


class Page(HTMLParser):
    """Tags, references and text of a page."""

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


def test_report_of_a_finished_run_has_every_picture(finished: Path) -> None:
    names = {p.stem for p in (finished / "report").glob("*.png")}
    assert names == {plot.name for plot in PLOTS}
    assert all((finished / "report" / f"{n}.png").read_bytes().startswith(PNG) for n in names)


def test_page_is_well_formed_and_self_contained(finished: Path) -> None:
    page = Page((finished / "report" / "index.html").read_text())
    assert page.open == [] and page.references == []
    assert len(page.images) == len(PLOTS)
    assert all(base64.b64decode(src.removeprefix("data:image/png;base64,")).startswith(PNG) for src in page.images)
    assert "night <1>" in page.text


def test_page_shows_the_numbers_of_the_comparison(finished: Path) -> None:
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


def test_report_of_a_run_without_updates_says_so(tmp_path: Path) -> None:
    page = write_report(run_files.write_run(tmp_path / "r", [], [], Config()))
    text = Page(page.read_text()).text
    assert "No outer update has been recorded yet" in text and "outertrain evaluate" in text
    assert list(page.parent.glob("*.png")) == []


@pytest.mark.heavy
def test_report_of_one_update_has_the_pictures_it_can_draw(tmp_path: Path) -> None:
    lonely = [record._replace(var_rp=UNKNOWN) for record in run_files.history(1)]
    page = write_report(run_files.write_run(tmp_path / "r", lonely, [], Config()))
    names = {p.stem for p in page.parent.glob("*.png")}
    assert names == {"outer_loss", "outer_loss_time", "variances", "weights", "windows", "staleness", "norms"}


def test_gather_leaves_out_updates_past_the_checkpoint(tmp_path: Path) -> None:
    lines = run_files.history(4)
    run = run_files.write_run(tmp_path / "r", [*lines, *(line._replace(epoch=2) for line in lines[2:3])], [], Config())
    claim(run / "epochs", Position(1, 2), 0.0)
    assert [(r.epoch, r.version) for r in gather(run, Config()).history] == [(1, 1), (1, 2), (2, 3)]


def test_report_of_no_run_is_a_user_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no run \(config.toml is missing\)"):
        write_report(tmp_path)


def test_report_that_cannot_be_written_leaves_the_run_as_it_is(tmp_path: Path) -> None:
    run = run_files.write_run(tmp_path / "r", [], [], Config())
    (run / "report").write_text("a file in the way")
    before = {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}
    with pytest.raises(UserError, match=r"cannot write the report into .*report \(file exists\).*again"):
        write_report(run)
    assert {p: p.read_bytes() for p in run.rglob("*") if p.is_file()} == before


def test_page_contains_no_path_and_no_link(finished: Path) -> None:
    text = (finished / "report" / "index.html").read_text()
    assert str(finished.parent) not in text
    assert re.search(r"https?://", text) is None


@pytest.mark.heavy
def test_page_shows_the_evaluation_it_is_given(tmp_path: Path) -> None:
    run = run_files.write_run(tmp_path / "r", [], run_files.unrolls(tasks=3), Config())
    evaluation = read_evaluation(run / "evaluation", Config(), "e" * 64)
    text = Page(write_report(run, evaluation).read_text()).text
    assert "learned (version 100)" in text and "learned (version 200)" not in text


def test_training_seconds_add_the_incarnations_of_the_learner() -> None:
    first, second = run_files.history(2)
    restarted = first._replace(epoch=2, seconds=3.0)
    assert training_seconds([first, second, restarted]) == second.seconds + 3.0


def test_cost_is_the_computing_of_the_samples(tmp_path: Path) -> None:
    """Whatever number of workers there was at any time; without it, the seconds times the configured number."""
    records = [record._replace(core_seconds=2.5) for record in run_files.history(4)]
    run = run_files.write_run(tmp_path / "new", records, [], Config())
    assert outer_training_cost(run, Config()) == 10.0
    old = run_files.write_run(tmp_path / "old", run_files.history(4), [], Config())
    assert outer_training_cost(old, Config()) == training_seconds(run_files.history(4)) * Config().workers.count
    empty = run_files.write_run(tmp_path / "empty", [], [], Config())
    assert outer_training_cost(empty, Config()) is None
