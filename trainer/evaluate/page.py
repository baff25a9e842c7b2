"""The report for readers: one HTML page that needs nothing else, and Markdown with its plots, for a model's card."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from trainer.evaluate.measure import MEASURES, Attack
from trainer.evaluate.outcome import Role
from trainer.evaluate.plot import Plot, plots_of
from trainer.evaluate.report import Figure, Report
from trainer.evaluate.wording import caution, headline, reference_name

PAGE_NAME = "report.html"
CARD_NAME = "report.md"


_Rows = list[tuple[str, dict[Role, Figure]]]
_Section = tuple[Attack, list[tuple[str, str]], _Rows]
"""An attack, its plots (a name or the SVG itself, and a caption), and its figures, a measure a row."""


def write_page(report: Report, folder: Path) -> Path:
    """Write `report.html`."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / PAGE_NAME
    path.write_text(render_page(report), encoding="utf-8")
    return path


def write_card(report: Report, folder: Path) -> Path:
    """Write `report.md` and beside it the plots that it shows, `A-1.svg` and so on."""
    folder.mkdir(parents=True, exist_ok=True)
    named: list[_Section] = []
    for attack, plots, rows in _sections(report):
        files = [(f"{attack.value}-{place}.svg", plot) for place, plot in enumerate(plots, 1)]
        for name, plot in files:
            (folder / name).write_text(plot.svg, encoding="utf-8")
        named.append((attack, [(name, plot.caption) for name, plot in files], rows))
    path = folder / CARD_NAME
    path.write_text(_render("report.md.jinja", report, named), encoding="utf-8")
    return path


def render_page(report: Report) -> str:
    """The page as text."""
    within: list[_Section] = [
        (attack, [(Markup(plot.svg), plot.caption) for plot in plots], rows)  # noqa: S704
        for attack, plots, rows in _sections(report)
    ]
    return _render("report.html.jinja", report, within)


def _sections(report: Report) -> Iterator[tuple[Attack, list[Plot], _Rows]]:
    """Each attack that was made, with its plots and its figures."""
    for attack in Attack:
        if any(figure.attack == attack.value for figure in report.figures):
            yield attack, plots_of(report, attack.value), _rows(report, attack)


def _render(template: str, report: Report, sections: Sequence[_Section]) -> str:
    environment = Environment(
        loader=PackageLoader("trainer", "evaluate"), autoescape=select_autoescape(["html.jinja"]),
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    return environment.get_template(template).render(
        report=report, headline=headline(report), caution=caution(report), attacks=sections, measures=MEASURES,
        roles=[role for role in Role if any(figure.role is role for figure in report.figures)],
        reference_name=reference_name,
    )  # fmt: skip


def _rows(report: Report, attack: Attack) -> _Rows:
    """The figures of an attack, a measure a row."""
    rows: dict[str, dict[Role, Figure]] = {}
    for figure in report.figures:
        if figure.attack == attack.value:
            rows.setdefault(figure.measure, {})[figure.role] = figure
    return list(rows.items())
