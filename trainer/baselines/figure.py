"""A comparison as one figure: what each method leaves to relearn, what it keeps of the skills, and what it costs.

Left, the recall of the half of the facts that is *not* fine-tuned, over the steps of fine-tuning on the other half:
flat and low is erased, steep is hidden. Right, the best of that curve against the skills that are left; the area of a
point is the time that the chosen setting took.
"""

import itertools
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from trainer.baselines.compare import Comparison, Row
from trainer.evaluate.outcome import Role

FIGURE = "compare.svg"
_CURVE, _SKILLS = "C.relearn_fast", ("D.logic", "D.reading", "D.arithmetic_chain")
_STYLE: Any = {
    "font.size": 9,
    "svg.fonttype": "none",
    "svg.hashsalt": "compare",
    "axes.spines.top": False,
    "axes.spines.right": False,
}
_TAB20 = mpl.colormaps["tab20"].colors  # type: ignore[attr-defined]
_LINE, _ASIDE = 0.035, 0.03  # the height of a title, and how far it stands beside its point
_COLOURS = (*_TAB20[::2], *_TAB20[1::2])  # the strong ones first


def draw_comparison(comparison: Comparison, folder: Path) -> Path:
    """Draw the figure into a folder; its path comes back."""
    rows = [row for row in comparison.rows if row.report.figure(_CURVE) is not None]
    points: list[tuple[float, float, str]] = []
    path = folder / FIGURE
    with mpl.rc_context(_STYLE):
        canvas = Canvas(figsize=(11, 4.6), layout="constrained")
        left, right = canvas.subplots(1, 2)
        for row, colour in zip(rows, itertools.cycle(_COLOURS), strict=False):
            _curve(left, row, colour)
            if (kept := skills(row)) is not None and (best := row.report.figure(_CURVE)) is not None:
                points.append((best.value, kept, row.title))
                right.scatter([kept], [best.value], s=_area(row), color=[colour], alpha=0.75, linewidths=0)
        _name_points(right, points)
        left.set(xlabel="steps of fine-tuning on half of the facts", ylabel="recall of the other half", ylim=(-0.02, 1))
        right.set(
            xlabel="skills left: mean of logic, reading, arithmetic", ylabel="recall of the other half, best step",
            xlim=(-0.02, 0.05 + 1.2 * max([0.1, *(kept for _, kept, _ in points)])),
            ylim=(-0.02, 1.02),
        )  # fmt: skip
        canvas.legend(*left.get_legend_handles_labels(), loc="outside right upper", frameon=False, fontsize=8)
        canvas.savefig(path, format="svg", metadata={"Date": None})
    return path


def skills(row: Row) -> float | None:
    """The mean of the skills that the method's model still has; None where none was measured."""
    found = [figure.value for name in _SKILLS if (figure := row.report.figure(name)) is not None]
    return sum(found) / len(found) if found else None


def _curve(axes: Axes, row: Row, colour: object) -> None:
    never_knew = row.name == "control"  # its curve is the reference's own, in every report
    style: Any = {"linestyle": "--", "linewidth": 2.5} if never_knew else {}
    for line in row.report.curves:
        if line.measure == _CURVE and line.role is (Role.CONTROL if never_knew else Role.CORE):
            axes.plot(line.x, line.y, marker="o", markersize=3, color=colour, label=row.title, **style)


def _area(row: Row) -> Any:
    """Grows with the seconds that the chosen setting took."""
    return 25 + next((trial.seconds for trial in row.trials if trial.setting == row.chosen), 0.0)


def _name_points(axes: Axes, points: list[tuple[float, float, str]]) -> None:
    """Write titles beside points, given as (y, x, title): from below, each so far up that none lies on another."""
    above = -1.0
    for y, x, title in sorted(points):
        above = max(y, above + _LINE)
        axes.annotate(
            title, (x, y), xytext=(x + _ASIDE, above), fontsize=7, va="center",
            arrowprops={"arrowstyle": "-", "linewidth": 0.4, "color": "grey", "shrinkB": 0},
        )  # fmt: skip
