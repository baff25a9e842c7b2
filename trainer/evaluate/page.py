"""The report as one page that needs nothing else: text, tables and plots in a single HTML file."""

from importlib import resources
from pathlib import Path

from jinja2 import Environment, StrictUndefined, select_autoescape
from markupsafe import Markup

from trainer.evaluate.measure import MEASURES, Attack
from trainer.evaluate.outcome import Role
from trainer.evaluate.plot import plots_of
from trainer.evaluate.report import Figure, Report
from trainer.evaluate.wording import caution, headline, reference_name

PAGE_NAME = "report.html"


def write_page(report: Report, folder: Path) -> Path:
    """Write `report.html`."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / PAGE_NAME
    path.write_text(render_page(report), encoding="utf-8")
    return path


def render_page(report: Report) -> str:
    """The page as text."""
    environment = Environment(autoescape=select_autoescape(default=True), undefined=StrictUndefined)
    source = resources.files("trainer.evaluate").joinpath("report.html.jinja").read_text(encoding="utf-8")
    attacks = []
    for attack in Attack:
        figures = [figure for figure in report.figures if figure.attack == attack.value]
        if figures:
            plots = [(Markup(plot.svg), plot.caption) for plot in plots_of(report, attack.value)]  # noqa: S704
            attacks.append((attack, plots, _rows(report, attack)))
    return environment.from_string(source).render(
        report=report, headline=headline(report), caution=caution(report), attacks=attacks, measures=MEASURES,
        roles=[role for role in Role if any(figure.role is role for figure in report.figures)],
        reference_name=reference_name,
    )  # fmt: skip


def _rows(report: Report, attack: Attack) -> list[tuple[str, dict[Role, Figure]]]:
    """The figures of an attack, a measure a row."""
    rows: dict[str, dict[Role, Figure]] = {}
    for figure in report.figures:
        if figure.attack == attack.value:
            rows.setdefault(figure.measure, {})[figure.role] = figure
    return list(rows.items())
