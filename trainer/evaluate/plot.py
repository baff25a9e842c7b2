"""The plots of the report, as SVG text that stands in the page itself. Drawn by matplotlib; no window, no file."""

import io
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from trainer.evaluate.measure import MEASURES
from trainer.evaluate.outcome import Role
from trainer.evaluate.report import Figure, Judgement, Line, Report

_COLOURS = {
    Role.CORE: "#0b6e4f",
    Role.BASE: "#8a8a8a",
    Role.CONTROL: "#2f5d9b",
    Role.STAND_IN: "#d08c00",
    Role.CHANCE: "#b9a9c9",
}
_NAMES = {
    Role.CORE: "core",
    Role.BASE: "base",
    Role.CONTROL: "never-knew control",
    Role.STAND_IN: "core on stand-ins",
    Role.CHANCE: "majority or name alone",
}
_STYLE: Any = {
    "font.size": 9,
    "svg.fonttype": "none",
    "svg.hashsalt": "gate",
    "axes.spines.top": False,
    "axes.spines.right": False,
}
_FAILED = "#b3261e"


@dataclass(frozen=True, slots=True)
class Plot:
    """A plot and the sentence under it."""

    svg: str
    caption: str


def plots_of(report: Report, attack: str) -> list[Plot]:
    """The plots of one attack, in reading order; those without data are left out."""
    with mpl.rc_context(_STYLE):
        made = [_bars(report, attack)] if attack in "AD" else []
        made += [_forest(report, attack)]
        if attack == "B":
            made += [_lines(report, "B.probe_linear", "layer (0 is the embeddings)", "accuracy", by_label=True)]
            made += [_lines(report, "B.lens", "layer (0 is the embeddings)", "reciprocal rank")]
        if attack == "C":
            beside = {"C.relearn": "C.half_shown", "C.relearn_few": "C.few_shown"}
            ways = ("relearn", "relearn_fast", "relearn_lora", "relearn_ten", "unrelated", "relearn_few")
            for measure in (f"C.{way}" for way in ways):
                made.append(_lines(report, measure, "steps of fine-tuning", "recall", shown=beside.get(measure, "")))
            made.append(_lines(report, "C.layer_restored", "layer restored from the base", "recall"))
        if attack == "F":
            made += [_lines(report, "F.by_size", "facts removed at once", "recall", by_label=True)]
        if attack == "E":
            made.append(_knock_out(report))
    return [plot for plot in made if plot is not None]


def _bars(report: Report, attack: str) -> Plot | None:
    """Every share of an attack, the roles side by side."""
    shown = [f for f in report.figures if f.attack == attack and f.unit in ("share", "ratio")]
    measures = list(dict.fromkeys(f.measure for f in shown))
    roles = [role for role in _COLOURS if any(f.role is role for f in shown)]
    if not measures:
        return None
    canvas = Canvas(figsize=(8.6, 0.32 * len(measures) * max(1, len(roles) / 2) + 1.0), layout="constrained")
    axes = canvas.subplots()
    height = 0.8 / len(roles)
    for place, role in enumerate(roles):
        for row, measure in enumerate(measures):
            figure = next((f for f in shown if f.measure == measure and f.role is role), None)
            if figure is not None:
                _bar(axes, row + height * (place - (len(roles) - 1) / 2), height, figure, _COLOURS[role])
        axes.barh([0], [0], color=_COLOURS[role], label=_NAMES[role])
    axes.set_yticks(range(len(measures)), [MEASURES[measure].title for measure in measures])
    axes.invert_yaxis()
    axes.set_xlim(0, 1.02)
    axes.legend(loc="lower right", frameon=False, bbox_to_anchor=(1, 1), ncols=len(roles))
    return Plot(_svg(canvas), "Values with 95 % intervals.")


def _bar(axes: Axes, y: float, height: float, figure: Figure, colour: str) -> None:
    errors = [[max(0.0, figure.value - figure.low)], [max(0.0, figure.high - figure.value)]]
    axes.barh([y], [figure.value], height=height * 0.92, color=colour)
    axes.errorbar([figure.value], [y], xerr=errors, fmt="none", ecolor="#222222", elinewidth=0.8, capsize=1.5)


def _forest(report: Report, attack: str) -> Plot | None:
    """Core minus reference for each judged measure, with its margin."""
    rows = [v for v in report.verdicts if v.measure.startswith(attack) and v.difference is not None]
    if not rows:
        return None
    canvas = Canvas(figsize=(8.6, 0.3 * len(rows) + 0.9), layout="constrained")
    axes = canvas.subplots()
    for row, verdict in enumerate(rows):
        _difference(axes, row, verdict)
    axes.axvline(0, color="#444444", linewidth=0.8)
    axes.set_yticks(range(len(rows)), [MEASURES[verdict.measure].title for verdict in rows])
    axes.invert_yaxis()
    axes.set_xlabel("core minus reference")
    return Plot(
        _svg(canvas),
        "Difference from the reference with its 95 % interval; the band is what the gate admits, red lies outside.",
    )


def _difference(axes: Axes, row: int, verdict: Judgement) -> None:
    assert verdict.difference is not None, "only judged differences are drawn"
    assert verdict.low is not None, "a difference has its interval"
    assert verdict.high is not None, "a difference has its interval"
    rule = MEASURES[verdict.measure].rule
    low = -1.05 if rule.startswith("at most") else -verdict.limit
    high = 1.05 if rule == "at least base" else verdict.limit
    axes.fill_betweenx([row - 0.4, row + 0.4], low, high, color="#e3efe9", linewidth=0)
    colour = _COLOURS[Role.CORE] if verdict.passed else _FAILED
    errors = [[max(0.0, verdict.difference - verdict.low)], [max(0.0, verdict.high - verdict.difference)]]
    axes.errorbar([verdict.difference], [row], xerr=errors, fmt="o", color=colour, markersize=4, capsize=2)
    axes.set_xlim(-1.05, 1.05)


def _lines(
    report: Report, measure: str, x_label: str, y_label: str, *, by_label: bool = False, shown: str = ""
) -> Plot | None:
    """The curves of one measure; with `by_label`, a panel a label; dashed, those of `shown` about what was trained."""
    curves = [curve for curve in report.curves if curve.measure in (measure, shown)]
    if not curves:
        return None
    labels = list(dict.fromkeys(curve.label for curve in curves)) if by_label else [""]
    columns = min(2, len(labels))
    rows = -(-len(labels) // columns)
    canvas = Canvas(figsize=(4.3 * columns + (0 if columns > 1 else 1.2), 2.6 * rows), layout="constrained")
    panels: list[Axes] = list(canvas.subplots(rows, columns, squeeze=False).flat)
    for panel in panels[len(labels) :]:
        panel.set_visible(False)
    for panel, label in zip(panels, labels, strict=False):
        for curve in curves:
            if not by_label or curve.label == label:
                _line(panel, curve, shown=curve.measure == shown)
        panel.set_ylim(-0.03, 1.03)
        panel.set_xlabel(x_label)
        panel.set_ylabel(y_label)
        panel.set_title(label, fontsize=9)
        panel.legend(frameon=False, fontsize=8)
    return Plot(_svg(canvas), f"{MEASURES[measure].title}: {MEASURES[measure].means}.")


def _line(panel: Axes, curve: Line, *, shown: bool) -> None:
    colour, name = _COLOURS[curve.role], f"{_NAMES[curve.role]}{', facts shown' if shown else ''} (n = {curve.n})"
    panel.plot(curve.x, curve.y, "--" if shown else "-", marker="o", markersize=3, color=colour, label=name)
    if curve.low:
        panel.fill_between(curve.x, curve.low, curve.high, color=colour, alpha=0.15, linewidth=0)


def _knock_out(report: Report) -> Plot | None:
    """Memory on and off: two bars a task family, a panel a model."""
    families = (("fact", "facts"), ("hops", "two hops"), ("reading", "reading"), ("logic", "logic"))
    roles = [role for role in Role if report.figure("E.knock_fact_on", role) is not None]
    if not roles:
        return None
    canvas = Canvas(figsize=(4.3 * max(2, len(roles)) * 0.9, 2.9), layout="constrained")
    for place, role in enumerate(roles):
        axes = canvas.add_subplot(1, len(roles), place + 1)
        for shift, (switch, colour) in enumerate((("on", _COLOURS[Role.CORE]), ("off", "#c9c9c9"))):
            for x, (family, _) in enumerate(families):
                figure = report.figure(f"E.knock_{family}_{switch}", role)
                if figure is not None:
                    errors = [[max(0.0, figure.value - figure.low)], [max(0.0, figure.high - figure.value)]]
                    axes.bar([x + 0.38 * shift], [figure.value], width=0.36, color=colour)
                    axes.errorbar(
                        [x + 0.38 * shift], [figure.value], yerr=errors, fmt="none", ecolor="#222222", capsize=2
                    )
            axes.bar([0], [0], color=colour, label=f"memory {switch}")
        axes.set_xticks([x + 0.19 for x in range(len(families))], [name for _, name in families])
        axes.set_ylim(0, 1.05)
        axes.set_title(_NAMES[role], fontsize=9)
        axes.legend(frameon=False, fontsize=8)
    return Plot(_svg(canvas), "Knock-out: with the memory off, facts must fall and reading and logic must stay.")


def _svg(canvas: Canvas) -> str:
    buffer = io.StringIO()
    canvas.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]
