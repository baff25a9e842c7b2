"""What happened inside, as a figure: what is lost and kept, from recall to lookups, and steps an answer, over training.

Is forgetting a phase transition or a slope? The change point is where two straight pieces fit recall best, and its
width says how many steps lie between nine tenths and one tenth of the fall.
"""

import html
import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

Row = dict[str, float | str | None]
TRAINING_FIGURE = "training.svg"
"""The figure in a core's folder, where the gate's report finds it."""
_LOST_AND_KEPT = (
    ("canary/recall", "recall, held-out wording", "-"),
    ("canary/logic", "logic", "-"),
    ("canary/decoded", "a fresh linear probe", "-"),
    ("canary/decoded_chance", "the same, knowing nothing", ":"),
    ("canary/probe", "the probes that are reversed", "-"),
)
_STYLE: Any = {"font.size": 9, "svg.hashsalt": "training", "axes.spines.top": False, "axes.spines.right": False}
_LEAST_LOOKS = 4
_CAPTION = re.compile(r"<dc:description>(.*?)</dc:description>", re.DOTALL)


@dataclass(frozen=True, slots=True)
class ChangePoint:
    """Where recall fell. `gain` is the share of the error of one line that two levels take away: near 1 is a step."""

    step: float
    before: float
    after: float
    width_steps: float
    gain: float
    look: int
    """Number of the first look after it."""

    @property
    def verdict(self) -> str:
        """In words."""
        return "a phase transition" if self.gain > 0.5 else "a slope"


def series(history: Sequence[Row], name: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Steps and values of a series, where it was noted."""
    points = [(row["step"], row[name]) for row in history if isinstance(row.get(name), int | float)]
    steps, values = zip(*points, strict=True) if points else ((), ())
    return np.asarray(steps, np.float64), np.asarray(values, np.float64)


def change_point(steps: NDArray[np.float64], values: NDArray[np.float64]) -> ChangePoint | None:
    """The best single step in a series by least squares, compared with the best straight line; None for few looks.

    Source: binary segmentation with one change in the mean, as in Truong et al., Selective review of offline change
    point detection methods, https://arxiv.org/abs/1801.00718.
    """
    if len(values) < _LEAST_LOOKS or np.ptp(values) == 0:
        return None
    costs = [values[:cut].var() * cut + values[cut:].var() * (len(values) - cut) for cut in range(1, len(values))]
    cut = int(np.argmin(costs)) + 1
    line = np.polyval(np.polyfit(steps, values, 1), steps)
    line_cost = float(((values - line) ** 2).sum())
    before, after = float(values[:cut].mean()), float(values[cut:].mean())
    gain = 1 - min(float(costs[cut - 1]) / line_cost, 1.0) if line_cost > 0 else 0.0
    return ChangePoint(
        float((steps[cut - 1] + steps[cut]) / 2), before, after, _width(steps, values, before, after), gain, cut
    )


def _width(steps: NDArray[np.float64], values: NDArray[np.float64], before: float, after: float) -> float:
    high, low = after + 0.9 * (before - after), after + 0.1 * (before - after)
    inside = steps[(values < max(high, low)) & (values > min(high, low))]
    return float(np.ptp(inside)) if len(inside) > 1 else 0.0


def draw_figures(history: Sequence[Row], folder: Path) -> dict[str, object]:
    """Draw the figure of a run and write down what it says; the same comes back as plain values."""
    mpl.use("Agg")
    from matplotlib import pyplot

    folder.mkdir(parents=True, exist_ok=True)
    change = change_point(*series(history, "canary/recall"))
    said = caption(history, change)
    with mpl.rc_context(_STYLE):
        figure, panels = pyplot.subplots(3, 1, figsize=(8, 9.5), sharex=True, height_ratios=(3, 3, 2))
        _draw_lost_and_kept(panels[0], history, change)
        _draw_shift(panels[1], history)
        _draw_steps(panels[2], history)
        _finish(figure, said)
        figure.savefig(folder / "inside.png", dpi=120)
        figure.savefig(folder / "inside.svg", metadata={"Date": None, "Description": said})
        pyplot.close(figure)
    found: dict[str, object] = {"change_point": asdict(change) | {"verdict": change.verdict} if change else None}
    (folder / "inside.json").write_text(json.dumps(found, indent=2), encoding="utf-8")
    return found


def keep_figure(figures: Path, core: Path) -> Path:
    """Lay the figure that was drawn into `figures` beside a core, where the gate's report finds it."""
    return Path(shutil.copyfile(figures / "inside.svg", core / TRAINING_FIGURE))


def caption(history: Sequence[Row], change: ChangePoint | None) -> str:
    """What the figure shows, with the verdict on recall."""
    looks = [row for row in history if isinstance(row.get("canary/recall"), int | float)]
    shown = "Above: what is lost and what is kept. Middle: from direct recall to step-by-step lookups. Below: steps."
    if change is None:
        return f"{shown} Of {len(looks)} looks, recall has no change point."
    stage = str(looks[change.look]["stage"])
    taken = f"before a step was taken, by «{stage}»" if change.step == 0 else f"at step {change.step:g}, in «{stage}»"
    return (
        f"{shown} Recall in held-out wording goes from {change.before:.2f} to {change.after:.2f} {taken}: "
        f"{change.verdict}, {change.width_steps:g} steps wide; two levels leave {1 - change.gain:.0%} of the error of "
        "a straight line."
    )


def caption_of(figure: Path) -> str:
    """The caption that a figure of a core's folder carries; empty where it has none."""
    found = _CAPTION.search(figure.read_text(encoding="utf-8", errors="replace"))
    return " ".join(html.unescape(found[1]).split()) if found else ""


def _draw_lost_and_kept(axes: Axes, history: Sequence[Row], change: ChangePoint | None) -> None:
    for name, label, line in _LOST_AND_KEPT:
        _draw(axes, history, name, label, linestyle=line)
    if change is not None:
        axes.axvline(change.step, linestyle="--", color="grey", label=f"recall breaks: {change.verdict}")
    _as_shares(axes, "share right")
    strength = series(history, "step/lambda")
    if strength[1].any():
        twin = axes.twinx()
        twin.plot(*strength, color="tab:red", linewidth=0.7, label="λ of the reversal")
        twin.set_ylabel("λ of the reversal")
        twin.set_ylim(0, max(float(strength[1].max()), 1.0) * 1.02)


def _draw_shift(axes: Axes, history: Sequence[Row]) -> None:
    """Shares of the answers to fact questions; runs of old noted no direct answers, so foretold values stand in."""
    steps, direct = series(history, "canary/direct")
    _, looked_up = series(history, "canary/lookup")
    if len(steps):
        axes.plot(steps, direct, label="answered directly, and right", marker="o", markersize=3)
        axes.plot(steps, looked_up, label="looked up", marker="o", markersize=3)
        neither = 1 - direct - looked_up
        axes.plot(steps, neither, label="neither", marker="o", markersize=3, color="silver")
    else:
        _draw(axes, history, "canary/recall", "recalled directly")
        _draw(axes, history, "canary/lookup", "looked up")
    _as_shares(axes, "share of fact questions")


def _draw_steps(axes: Axes, history: Sequence[Row]) -> None:
    _draw(axes, history, "canary/steps", "steps an answer", color="black")
    _draw(axes, history, "canary/chain", "chain opened unprompted (share)", color="tab:purple")
    axes.set_ylim(bottom=0)
    axes.set_ylabel("steps an answer")
    axes.set_xlabel("training step")
    if axes.lines:
        axes.legend(fontsize=8)


def _draw(axes: Axes, history: Sequence[Row], name: str, label: str, **style: Any) -> None:
    steps, values = series(history, name)
    if len(steps):
        axes.plot(steps, values, label=label, marker="o" if len(steps) < 40 else None, markersize=3, **style)


def _as_shares(axes: Axes, label: str) -> None:
    axes.set_ylabel(label)
    axes.set_ylim(-0.02, 1.02)
    if axes.lines:
        axes.legend(fontsize=8)


def _finish(figure: Figure, said: str) -> None:
    figure.tight_layout(rect=(0, 0.06, 1, 1))
    figure.text(0.02, 0.01, said, fontsize=8, wrap=True, verticalalignment="bottom")
