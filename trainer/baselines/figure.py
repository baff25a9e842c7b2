"""A comparison as one figure: what each method leaves to relearn, what it keeps of the skills, and what it costs.

Left, the recall of the half of the facts that is *not* fine-tuned, over the steps of fine-tuning on the other half:
flat and low is erased, steep is hidden. Right, the best of that curve against the skills that are left; the area of a
point is the time that the chosen setting took.
"""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from sklearn.isotonic import isotonic_regression

from trainer.baselines.comparison import Comparison, Row
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
_LINE, _TOP = 0.045, 1.0  # the height of a title, and of the highest
_COLUMN = 1.06  # where the titles begin, in widths of the axes
_COLOURS = (*_TAB20[::2], *_TAB20[1::2])  # the strong ones first


class _Key(NamedTuple):
    """A row in the legend."""

    height: float
    kept: float | None
    title: str
    colour: Any


def draw_comparison(comparison: Comparison, folder: Path) -> Path:
    """Draw the figure into a folder; its path comes back."""
    rows = [(row, found.value) for row in comparison.rows if (found := row.report.figure(_CURVE)) is not None]
    path = folder / FIGURE
    with mpl.rc_context(_STYLE):
        canvas = Canvas(figsize=(11, 4.6), layout="constrained")
        left, right = canvas.subplots(1, 2)
        left.set(xlabel="steps of fine-tuning on half of the facts", ylabel="recall of the other half", ylim=(-0.02, 1))
        right.set(
            xlabel="skills left: mean of logic, reading, arithmetic", ylabel="recall of the other half, best step",
            ylim=(-0.02, 1.02),
        )  # fmt: skip
        keys = []
        for (row, best), colour in zip(rows, itertools.cycle(_COLOURS), strict=False):
            kept = skills(row)
            _curve(left, row, colour)
            if kept is not None:
                right.scatter([kept], [best], s=_area(row), color=[colour], alpha=0.75, linewidths=0)
            keys.append(_Key(best, kept, row.title, colour))
        _name(right, keys)
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
            axes.plot(line.x, line.y, marker="o", markersize=3, color=colour, **style)


def _area(row: Row) -> Any:
    """Grows with the seconds that the chosen setting took."""
    return 25 + next((trial.seconds for trial in row.trials if trial.setting == row.chosen), 0.0)


def _name(axes: Axes, keys: list[_Key]) -> None:
    """The legend of both parts: titles in a column beside the axes, each with a line in its colour to its point.

    Where skills were not measured there is no point, and the line goes to the edge.
    """
    keys = sorted(keys, key=lambda key: key.height)
    for key, height in zip(keys, spread([key.height for key in keys], _LINE, _TOP), strict=True):
        axes.annotate(
            key.title, (1.0 if key.kept is None else key.kept, key.height), (_COLUMN, height), fontsize=7.5,
            xycoords=("axes fraction" if key.kept is None else "data", "data"), textcoords=("axes fraction", "data"),
            va="center", annotation_clip=False,
            arrowprops={"arrowstyle": "-", "linewidth": 1.2, "color": key.colour, "shrinkA": 1, "shrinkB": 0,
                        "relpos": (0, 0.5)},
        )  # fmt: skip


def spread(heights: Sequence[float], gap: float, top: float) -> list[float]:
    """Ascending heights moved by the least squares that keep them `gap` apart, from 0 to `top`.

    They are apart if what is left after taking i gaps from the i-th still ascends: isotonic regression. Where there is
    no room for all, the lowest go below 0.
    """
    if not heights:
        return []
    steps = gap * np.arange(len(heights))
    highest = top - gap * (len(heights) - 1)
    return list(steps + isotonic_regression(heights - steps, y_min=min(0.0, highest), y_max=highest))
