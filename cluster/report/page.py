"""The report of a run: one self-contained HTML page and its pictures, drawn from the run directory's files alone."""

import base64
from collections.abc import Mapping, Sequence
from html import escape
from io import BytesIO
from pathlib import Path

import numpy as np

from cluster.report.canvas import NAMES
from cluster.report.plots import INNER, OUTER, PLOTS, Material, Plot
from common import configfile
from common.config import Config
from common.errors import UserError
from common.update_record import UpdateRecord
from learner.history import read_history
from workers.evaluation.comparison import Baseline, Comparison, Evaluation, read_evaluation


def write_report(run_dir: Path, evaluation: Evaluation | None = None) -> Path:
    """Writes report/index.html and its PNGs; returns the page's path.

    Args:
      evaluation: of the run; by default read from its directory.

    Raises:
      UserError: the directory holds no run, a file of it is damaged, or it cannot be written.
    """
    config = read_config(run_dir)
    material = gather(run_dir, config, evaluation)
    folder = run_dir / "report"
    try:
        folder.mkdir(exist_ok=True)
        pictures = {plot.name: png for plot in PLOTS if (png := render(plot, material)) is not None}
        for name, png in pictures.items():
            (folder / f"{name}.png").write_bytes(png)
        page = folder / "index.html"
        page.write_text(html_page(run_dir.resolve().name, config, material, pictures))
    except OSError as error:
        raise UserError(
            f"cannot write the report into {folder} ({(error.strerror or '').lower()}): "
            "make room or make it writable, then run `outertrain report` again; the run itself is not touched"
        ) from error
    return page


def read_config(run_dir: Path) -> Config:
    path = run_dir / "config.toml"
    if not path.is_file():
        raise UserError(f"{run_dir} holds no run (config.toml is missing): name the directory that `train` made")
    return configfile.load(str(path))


def gather(run_dir: Path, config: Config, evaluation: Evaluation | None = None) -> Material:
    unrolls, comparison = evaluation or read_evaluation(run_dir / "evaluation", config)
    return Material(read_history(run_dir), unrolls, comparison, config.estimator.objective)


def render(plot: Plot, material: Material) -> bytes | None:
    figure = plot.draw(material)
    if figure is None:
        return None
    buffer = BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def html_page(name: str, config: Config, material: Material, pictures: Mapping[str, bytes]) -> str:
    parts = [f"<header><h1>{escape(name)}</h1>{_lead(config, material)}{_tiles(material)}</header>"]
    for section in (INNER, OUTER):
        figures = "".join(_figure(p, pictures[p.name]) for p in PLOTS if p.section == section and p.name in pictures)
        if figures:
            table = _comparison_tables(material.comparison) if section == INNER and material.comparison else ""
            parts.append(f"<section><h2>{section}</h2>{table}<div class=grid>{figures}</div></section>")
    if material.history:
        parts.append(f"<section><h2>Samples</h2>{_verdicts(material.history[-1])}</section>")
    toml = escape(configfile.dump(config))
    parts.append(
        f"<section><h2>Configuration</h2><details><summary>Show</summary><pre>{toml}</pre></details></section>"
    )
    return _SHELL.format(title=escape(name), style=_STYLE, body="\n".join(parts))


def _lead(config: Config, material: Material) -> str:
    task, estimator = config.task, config.estimator
    sentence = (
        f"A learned optimizer ({config.optimizer.family}) for {task.family} tasks of {task.inner_steps} inner steps, "
        f"outer-trained for the {estimator.objective} loss with the {estimator.use} estimator."
    )
    if not material.history:
        sentence += " No outer update has been recorded yet."
    if material.comparison is None:
        sentence += " It has not been compared with a baseline yet: run <code>outertrain evaluate</code>."
    return f"<p>{sentence}</p>"


def _tiles(material: Material) -> str:
    tiles: list[tuple[str, str]] = []
    if material.comparison is not None:
        for b in sorted(material.comparison.baselines, key=lambda b: b.optimizer != "adam")[:1]:
            ratio = material.comparison.learned.mean() / b.per_task.mean()
            wins = int((material.comparison.learned < b.per_task).sum())
            tiles.append((f"{ratio:.2f}", f"of the loss of {NAMES[b.optimizer]} tuned on each task"))
            tiles.append((f"{wins} of {len(b.per_task)}", f"unseen tasks won against {NAMES[b.optimizer]}"))
    if material.history:
        last = material.history[-1]
        tiles.append((f"{last.version}", "outer updates"))
        tiles.append((_duration(sum(_lives(material.history))), "of outer-training"))
        tiles.append((f"{sum(r.inner_steps for r in material.history):,}", "inner steps"))
    cells = "".join(f"<div><b>{escape(value)}</b><span>{escape(text)}</span></div>" for value, text in tiles)
    return f"<div class=tiles>{cells}</div>"


def _lives(history: Sequence[UpdateRecord]) -> list[float]:
    """Seconds of each life of the learner, up to its last update that counts."""
    longest: dict[int, float] = {}
    for record in history:
        longest[record.epoch] = max(longest.get(record.epoch, 0.0), record.seconds)
    return list(longest.values())


def _duration(seconds: float) -> str:
    if seconds >= 5400:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 60:.1f} min" if seconds >= 90 else f"{seconds:.0f} s"


def _figure(plot: Plot, png: bytes) -> str:
    data = base64.b64encode(png).decode()
    return (
        f'<figure><h3>{escape(plot.title)}</h3><img alt="{escape(plot.title)}" src="data:image/png;base64,{data}">'
        f"<figcaption>{escape(plot.caption)}</figcaption></figure>"
    )


def _comparison_tables(comparison: Comparison) -> str:
    loss = f"mean {comparison.objective} loss"
    version = "" if comparison.version is None else f" (version {comparison.version})"
    rows = [[f"learned{version}", "", f"{comparison.learned.mean():.4f}", "", ""]]
    for b in comparison.baselines:
        rows += [_row(b, text, values, comparison) for text, values in _ways(b)]
    head = ["optimizer", "learning rate", loss, "learned / this", "tasks won"]
    tables = _table(head, rows)
    for b in comparison.baselines:
        summary = f"Every task against {NAMES[b.optimizer]}"
        tables += f"<details><summary>{escape(summary)}</summary>{_task_table(b, comparison)}</details>"
    return tables


def _ways(b: Baseline) -> list[tuple[str, np.ndarray]]:
    single = "one for all" if b.single_rate is None else f"{b.single_rate:.2g} for all"
    ways = [("best of each task", b.per_task), (single, b.single)]
    return ways if b.fine is None else [*ways, ("best of each task, finer grid", b.fine)]


def _row(b: Baseline, text: str, values: np.ndarray, comparison: Comparison) -> list[str]:
    ratio, wins = comparison.learned.mean() / values.mean(), int((comparison.learned < values).sum())
    return [NAMES[b.optimizer], text, f"{values.mean():.4f}", f"{ratio:.3f}", f"{wins}/{len(values)}"]


def _task_table(b: Baseline, comparison: Comparison) -> str:
    head = ["task", "learned", "best rate of the task", "that rate", "best single rate", "finer grid", "learned / best"]
    fine = b.fine if b.fine is not None else [None] * len(comparison.tasks)
    columns = zip(comparison.tasks, comparison.learned, b.per_task, b.best, b.single, fine, strict=True)
    rows = [
        [
            str(task),
            f"{learned:.4f}",
            f"{best:.4f}",
            "" if setting[0] is None else f"{setting[0]:.2g}",
            f"{single:.4f}",
            "" if finer is None else f"{finer:.4f}",
            f"{learned / best:.3f}",
        ]
        for task, learned, best, setting, single, finer in columns
    ]
    return _table(head, rows)


def _verdicts(record: UpdateRecord) -> str:
    total = max(1, sum(record.verdicts.values()))
    rows = [[escape(k), f"{v:,}", f"{v / total:.1%}"] for k, v in record.verdicts.items() if v]
    return _table(["verdict", "samples since the start", "share"], rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<div class=scroll><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>"


_STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #24292f; background: #fff; margin: 0 auto; max-width: 1180px;
  padding: 24px 20px 64px; }
h1 { font-size: 28px; margin: 0; overflow-wrap: anywhere; } h2 { font-size: 21px; margin: 40px 0 12px; }
h3 { font-size: 16px; margin: 0 0 6px; } header p { margin: 6px 0 16px; max-width: 70ch; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px; }
.tiles div { border: 1px solid #d8dee4; border-radius: 8px; padding: 10px 14px; }
.tiles b { display: block; font-size: 24px; font-variant-numeric: tabular-nums; }
.tiles span { font-size: 13px; color: #57606a; line-height: 1.3; display: block; }
.grid { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 340px), 1fr)); gap: 28px 24px; margin-top: 20px; }
figure { margin: 0; min-width: 0; } img { width: 100%; height: auto; display: block; }
figcaption { font-size: 13px; color: #57606a; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 14px; font-variant-numeric: tabular-nums; }
th, td { padding: 5px 14px 5px 0; text-align: right; border-bottom: 1px solid #d8dee4; white-space: nowrap; }
th { font-weight: 600; color: #57606a; } th:first-child, td:first-child { text-align: left; }
@media (max-width: 540px) { body { padding: 16px 14px 48px; } table { font-size: 12px; } th { white-space: normal; }
  th, td { padding-right: 8px; } .tiles { grid-template-columns: 1fr 1fr; } }
details { margin: 12px 0; } summary { cursor: pointer; color: #0969da; }
pre { background: #f6f8fa; padding: 14px; border-radius: 8px; overflow-x: auto; font-size: 13px; }
"""

_SHELL = """<!doctype html>
<html lang=en><head><meta charset=utf-8><meta name=viewport content="width=device-width, initial-scale=1">
<title>{title}: outertrain</title><style>{style}</style></head>
<body>
{body}
</body></html>
"""
