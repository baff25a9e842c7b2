"""The report for readers: one HTML page that needs nothing else, and Markdown with its plots, for a model's card."""

import base64
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from trainer.evaluate.measure import MEASURES, Attack
from trainer.evaluate.outcome import Role
from trainer.evaluate.plot import Plot, plots_of
from trainer.evaluate.report import Figure, Report
from trainer.evaluate.wording import caution, headline, reference_name
from trainer.figure import TRAINING_FIGURE, caption_of
from trainer.files import write_whole

PAGE_NAME = "report.html"
CARD_NAME = "report.md"

_Rows = list[tuple[str, dict[Role, Figure]]]
Drawn = tuple[Attack, list[Plot], _Rows]
"""An attack, its plots, and its figures, a measure a row."""
_Section = tuple[Attack, list[tuple[str, str]], _Rows]
"""The same with plots as a name or the SVG itself, and a caption."""


@dataclass(frozen=True, slots=True)
class Inside:
    """The figure of what happened inside over training: where it is shown from, and what it says."""

    source: str
    caption: str


def write_page(report: Report, folder: Path, core: Path | None = None, drawn: Sequence[Drawn] | None = None) -> Path:
    """Write `report.html`, with the figure of its training where the core's folder has one."""
    return write_whole(folder / PAGE_NAME, render_page(report, core, drawn))


def write_card(report: Report, folder: Path, core: Path | None = None, drawn: Sequence[Drawn] | None = None) -> Path:
    """Write `report.md` and beside it the plots that it shows, `A-1.svg` and so on, and the core's own figure."""
    folder.mkdir(parents=True, exist_ok=True)
    named: list[_Section] = []
    for attack, plots, rows in drawn or draw(report):
        files = [(f"{attack.value}-{place}.svg", plot) for place, plot in enumerate(plots, 1)]
        for name, plot in files:
            write_whole(folder / name, plot.svg)
        named.append((attack, [(name, plot.caption) for name, plot in files], rows))
    figure, inside = _figure_of(core), None
    if figure is not None:
        kept = folder / TRAINING_FIGURE
        if not (kept.exists() and kept.samefile(figure)):
            shutil.copyfile(figure, kept)
        inside = Inside(TRAINING_FIGURE, caption_of(figure))
    return write_whole(folder / CARD_NAME, _render("report.md.jinja", report, named, inside))


def render_page(report: Report, core: Path | None = None, drawn: Sequence[Drawn] | None = None) -> str:
    """The page as text. A core's own figure stands in it as an image, where nothing that it holds can run."""
    within: list[_Section] = [
        (attack, [(Markup(plot.svg), plot.caption) for plot in plots], rows)  # noqa: S704
        for attack, plots, rows in drawn or draw(report)
    ]
    figure, inside = _figure_of(core), None
    if figure is not None:
        data = base64.b64encode(figure.read_bytes()).decode("ascii")
        inside = Inside(f"data:image/svg+xml;base64,{data}", caption_of(figure))
    return _render("report.html.jinja", report, within, inside)


def _figure_of(core: Path | None) -> Path | None:
    return core / TRAINING_FIGURE if core is not None and (core / TRAINING_FIGURE).is_file() else None


def draw(report: Report) -> list[Drawn]:
    """Each attack that was made; who writes the page and the card draws once for both."""
    made = [attack for attack in Attack if any(figure.attack == attack.value for figure in report.figures)]
    return [(attack, plots_of(report, attack.value), _rows(report, attack)) for attack in made]


def _render(template: str, report: Report, sections: Sequence[_Section], inside: Inside | None) -> str:
    environment = Environment(
        loader=PackageLoader("trainer", "evaluate"), autoescape=select_autoescape(["html.jinja"]),
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    return environment.get_template(template).render(
        report=report, headline=headline(report), caution=caution(report), attacks=sections, measures=MEASURES,
        roles=[role for role in Role if any(figure.role is role for figure in report.figures)],
        reference_name=reference_name, inside=inside,
    )  # fmt: skip


def _rows(report: Report, attack: Attack) -> _Rows:
    """The figures of an attack, a measure a row."""
    rows: dict[str, dict[Role, Figure]] = {}
    for figure in report.figures:
        if figure.attack == attack.value:
            rows.setdefault(figure.measure, {})[figure.role] = figure
    return list(rows.items())
