"""The report of a run: one self-contained HTML page and its pictures, drawn from the files of the run directory."""

import base64
from collections.abc import Sequence
from html import escape
from importlib import resources
from io import BytesIO
from pathlib import Path
from string import Template
from typing import NamedTuple

import numpy as np

from cluster.report.evaluation_plots import EVALUATION_PLOTS
from cluster.report.family_plots import FAMILY_PLOTS
from cluster.report.material import Material, Plot, gather
from cluster.report.score_table import named, score_notes, score_rows, score_title
from cluster.report.table import family_rows
from cluster.report.training_plots import TRAINING_PLOTS
from cluster.runs.cost import training_seconds
from common import configfile
from common.config import Config
from common.errors import UserError
from common.plotting import NAMES
from common.update_record import UpdateRecord
from workers.evaluation.comparison import LEARNED, Baseline, Comparison, Evaluation, wins


class Picture(NamedTuple):
    """A plot that a run has data for."""

    plot: Plot
    png: bytes


def write_report(run_dir: Path, evaluation: Evaluation | None = None) -> Path:
    """Writes report/index.html and its PNGs; returns the path of the page.

    Args:
      evaluation: of the run; by default read from its directory.

    Raises:
      UserError: the directory holds no run, a file of it is corrupt, or it cannot be written.
    """
    config = read_config(run_dir)
    material = gather(run_dir, config, evaluation)
    folder = run_dir / "report"
    evaluated, trained = (render(plots, material) for plots in (EVALUATION_PLOTS, (*TRAINING_PLOTS, *FAMILY_PLOTS)))
    try:
        folder.mkdir(exist_ok=True)
        for picture in (*evaluated, *trained):
            (folder / f"{picture.plot.name}.png").write_bytes(picture.png)
        page = folder / "index.html"
        page.write_text(html_page(run_dir.resolve().name, config, material, evaluated, trained), encoding="utf-8")
    except OSError as error:
        raise UserError(
            f"cannot write the report into {folder} ({(error.strerror or '').lower()}): free some space or make it "
            "writable, then run `outertrain report` again; the run itself is unchanged"
        ) from error
    return page


def read_config(run_dir: Path) -> Config:
    path = run_dir / "config.toml"
    if not path.is_file():
        raise UserError(f"{run_dir} holds no run (config.toml is missing): give the directory that `train` created")
    return configfile.load(str(path))


def render(plots: Sequence[Plot], material: Material) -> list[Picture]:
    """The plots that there are data for."""
    pictures = []
    for plot in plots:
        figure = plot.draw(material)
        if figure is not None:
            buffer = BytesIO()
            figure.savefig(buffer, format="png", metadata={"Software": None})
            pictures.append(Picture(plot, buffer.getvalue()))
    return pictures


def html_page(
    name: str, config: Config, material: Material, evaluated: Sequence[Picture], trained: Sequence[Picture]
) -> str:
    tables = "" if material.comparison is None else _comparison_tables(material.comparison) + _scores(material)
    parts = [
        f"<header><h1>{escape(name)}</h1>{_lead(config, material)}{_tiles(material)}</header>",
        _section("On unseen tasks", tables, evaluated),
        _family_section(material),
        _section("Outer-training", "", trained),
    ]
    if material.history:
        parts.append(f"<section><h2>Samples</h2>{_verdicts(material.history[-1])}</section>")
    toml = f"<details><summary>Show</summary><pre>{escape(configfile.dump(config))}</pre></details>"
    parts.append(f"<section><h2>Configuration</h2>{toml}</section>")
    template = Template((resources.files(__package__) / "page.html").read_text(encoding="utf-8"))
    return template.substitute(title=escape(name), body="\n".join(filter(None, parts)))


def _section(title: str, tables: str, pictures: Sequence[Picture]) -> str:
    if not pictures:
        return ""
    figures = "".join(map(_figure, pictures))
    return f"<section><h2>{title}</h2>{tables}<div class=grid>{figures}</div></section>"


def _family_section(material: Material) -> str:
    if not material.families:
        return ""
    head, *rows = family_rows(material.families)
    links = ", ".join(
        f'<a href="../families/{escape(name)}/report/index.html">{escape(name)}</a>' for name, _ in material.families
    )
    return f"<section><h2>On unseen tasks of each family</h2>{_table(head, rows)}<p>Pages: {links}.</p></section>"


def _lead(config: Config, material: Material) -> str:
    estimator = config.estimator
    tasks = " and ".join(f"{escape(task.family)} tasks of {task.steps_text} inner steps" for task in config.tasks)
    sentence = (
        f"A learned optimizer ({config.optimizer.family}) for {tasks}, "
        f"outer-trained for the {estimator.objective} loss with the {estimator.use} estimator."
    )
    if not material.history:
        sentence += " No outer update has been recorded yet."
    if material.comparison is None and not material.families:
        sentence += " It has not been compared with a baseline yet: run <code>outertrain evaluate</code>."
    if material.best is not None:
        sentence += f" Best: {escape(material.best.sentence())} (<code>export --version best</code>)."
    return f"<p>{sentence}</p>"


def _tiles(material: Material) -> str:
    tiles: list[tuple[str, str]] = []
    comparison = material.comparison
    if comparison is not None:
        first = comparison.baseline("adam") or comparison.baselines[0]
        name, losses = NAMES[first.optimizer], first.per_task
        tiles.append((_ratio(comparison, losses, 2), f"of the loss of {name} tuned on each task"))
        tiles.append((f"{wins(comparison.learned, losses)} of {len(losses)}", f"unseen tasks won against {name}"))
    if material.history:
        tiles.append((f"{material.history[-1].version}", "outer updates"))
        tiles.append((_duration(training_seconds(material.history)), "of outer-training"))
        tiles.append((f"{sum(r.inner_steps for r in material.history):,}", "inner steps"))
    cells = "".join(f"<div><b>{escape(value)}</b><span>{escape(text)}</span></div>" for value, text in tiles)
    return f"<div class=tiles>{cells}</div>"


def _duration(seconds: float) -> str:
    if seconds >= 5400:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 60:.1f} min" if seconds >= 90 else f"{seconds:.0f} s"


def _figure(picture: Picture) -> str:
    data, title = base64.b64encode(picture.png).decode(), escape(picture.plot.title)
    return (
        f'<figure><h3>{title}</h3><img alt="{title}" src="data:image/png;base64,{data}">'
        f"<figcaption>{escape(picture.plot.caption)}</figcaption></figure>"
    )


def _comparison_tables(comparison: Comparison) -> str:
    version = "" if comparison.version is None else f" (version {comparison.version})"
    rows = [[f"{LEARNED}{version}", "", f"{comparison.learned.mean():.4f}", "", ""]]
    for baseline in comparison.baselines:
        rows += [_row(baseline, way, losses, comparison) for way, losses in _ways(baseline)]
    tables = _table(
        ["optimizer", "learning rate", f"mean {comparison.objective} loss", "learned / this", "tasks won"], rows
    )
    for baseline in comparison.baselines:
        summary = escape(f"Every task against {NAMES[baseline.optimizer]}")
        tables += f"<details><summary>{summary}</summary>{_task_table(baseline, comparison)}</details>"
    return tables


def _scores(material: Material) -> str:
    shown = named(material.comparison, material.others, material.pooled)
    if not shown:
        return ""
    head, *rows = score_rows(shown)
    notes = "".join(f"<p>{escape(note)}</p>" for note in score_notes(shown, material.cost))
    return f"<h3>{escape(score_title(shown))}</h3>{_table(head, rows)}{notes}"


def _ways(baseline: Baseline) -> list[tuple[str, np.ndarray]]:
    """The ways of tuning a baseline, with its losses [tasks]."""
    single = "one for all" if baseline.single_rate is None else f"{baseline.single_rate:.2g} for all"
    ways = [("best of each task", baseline.per_task), (single, baseline.single)]
    return ways if baseline.fine is None else [*ways, ("best of each task, finer grid", baseline.fine)]


def _row(baseline: Baseline, way: str, losses: np.ndarray, comparison: Comparison) -> list[str]:
    won = f"{wins(comparison.learned, losses)}/{len(losses)}"
    return [NAMES[baseline.optimizer], way, f"{losses.mean():.4f}", _ratio(comparison, losses, 3), won]


def _ratio(comparison: Comparison, losses: np.ndarray, digits: int) -> str:
    return f"{comparison.learned.mean() / losses.mean():.{digits}f}"


def _task_table(baseline: Baseline, comparison: Comparison) -> str:
    head = ["task", "learned", "best rate of the task", "that rate", "best single rate", "finer grid", "learned / best"]
    rows = [
        [
            str(score.task),
            f"{score.learned:.4f}",
            f"{score.best:.4f}",
            "" if score.best_setting.rate is None else f"{score.best_setting.rate:.2g}",
            f"{score.single:.4f}",
            "" if score.fine is None else f"{score.fine:.4f}",
            f"{score.learned / score.best:.3f}",
        ]
        for score in comparison.task_scores(baseline)
    ]
    return _table(head, rows)


def _verdicts(record: UpdateRecord) -> str:
    total = max(1, sum(record.verdicts.values()))
    rows = [[verdict, f"{count:,}", f"{count / total:.1%}"] for verdict, count in record.verdicts.items() if count]
    return _table(["verdict", "samples since the start", "fraction"], rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<div class=scroll><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>"
