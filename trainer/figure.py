"""What happened inside, as figures: recall, probes, logic and steps over training, and where recall broke.

Is forgetting a phase transition or a slope? The change point is where two straight pieces fit recall best, and its
width says how many steps lie between nine tenths and one tenth of the fall.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray

Row = dict[str, float | str | None]
_SERIES = (("canary/recall", "recall, held-out wording"), ("canary/probe", "probe accuracy"), ("canary/logic", "logic"),
           ("canary/lookup", "fact questions looked up"))  # fmt: skip
_LEAST_LOOKS = 4


@dataclass(frozen=True, slots=True)
class ChangePoint:
    """Where recall fell. `gain` is the share of the error of one line that two levels take away: near 1 is a step."""

    step: float
    before: float
    after: float
    width_steps: float
    gain: float

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
        float((steps[cut - 1] + steps[cut]) / 2), before, after, _width(steps, values, before, after), gain
    )


def _width(steps: NDArray[np.float64], values: NDArray[np.float64], before: float, after: float) -> float:
    high, low = after + 0.9 * (before - after), after + 0.1 * (before - after)
    inside = steps[(values < max(high, low)) & (values > min(high, low))]
    return float(np.ptp(inside)) if len(inside) > 1 else 0.0


def draw_figures(history: Sequence[Row], folder: Path) -> dict[str, object]:
    """Draw the figures of a run and write down what they say; the same comes back as plain values."""
    mpl.use("Agg")
    from matplotlib import pyplot

    folder.mkdir(parents=True, exist_ok=True)
    change = change_point(*series(history, "canary/recall"))
    figure, (upper, lower) = pyplot.subplots(2, 1, figsize=(8, 7), sharex=True)
    for name, label in _SERIES:
        steps, values = series(history, name)
        if len(steps):
            upper.plot(steps, values, label=label, marker="o" if len(steps) < 40 else None, markersize=3)
    if change is not None:
        upper.axvline(change.step, linestyle=":", color="grey", label=f"recall breaks: {change.verdict}")
    upper.set_ylabel("share")
    upper.set_ylim(-0.02, 1.02)
    upper.legend(fontsize=8)
    steps, values = series(history, "canary/steps")
    lower.plot(steps, values, color="black", label="steps an answer")
    lower.set_xlabel("training step")
    lower.set_ylabel("steps an answer")
    twin = lower.twinx()
    steps, values = series(history, "step/lambda")
    twin.plot(steps, values, color="tab:red", linewidth=1, label="λ")
    twin.set_ylabel("λ of the reversal")
    figure.tight_layout()
    figure.savefig(folder / "inside.png", dpi=120)
    figure.savefig(folder / "inside.svg")
    pyplot.close(figure)
    found: dict[str, object] = {"change_point": asdict(change) | {"verdict": change.verdict} if change else None}
    (folder / "inside.json").write_text(json.dumps(found, indent=2), encoding="utf-8")
    return found
