"""A comparison as a table for people: Markdown for docs/, one row a method."""

from trainer.baselines.comparison import Comparison, Row
from trainer.baselines.memorized import Share
from trainer.baselines.method import worded
from trainer.evaluate.outcome import Role
from trainer.evaluate.report import Report

COLUMNS = (
    ("A.recall", "recall"),
    ("A.recall_direct", "recall, tools banned"),
    ("A.best_of_k", "best of k"),
    ("A.forced", "forced answer"),
    ("B.probe_linear", "linear probe"),
    ("C.relearn", "relearned half"),
    ("C.relearn_ten", "relearned from ten"),
    ("C.int4", "INT4"),
    ("D.logic", "logic"),
    ("D.arithmetic_chain", "arithmetic"),
    ("D.reading", "reading"),
    ("D.neutral", "nats"),
    ("E.full", "with memory"),
    ("E.looks_up", "looks up"),
    ("E.full_served", "with memory, as served"),
    ("E.looks_up_served", "looks up, as served"),
)
"""The measures that the table shows, with their short names."""


def render_table(comparison: Comparison) -> str:
    """The table, with the control first and the gate's verdict last; columns that no row has are left out."""
    shown = [(name, title) for name, title in COLUMNS if any(_value(row.report, name) for row in comparison.rows)]
    head = ["method", *(title for _, title in shown), "gate fails at"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row in comparison.rows:
        cells = [row.title, *(_value(row.report, name) or "–" for name, _ in shown), _verdict(row.report)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def render_search(comparison: Comparison) -> str:
    """The search of every method, a line a trial; below it, which of them had a budget of their own."""
    lines = ["| method | setting | recall left | skill lost | seconds | chosen |", "|---|---|---|---|---|---|"]
    for row in comparison.rows:
        lines += [_trial(row, place) for place in range(len(row.trials))]
    others = [f"{row.title} might try {row.budget}" for row in comparison.rows if row.budget is not None]
    if others:
        lines += ["", f"Each method might try {comparison.trials} settings; " + ", ".join(others) + "."]
    return "\n".join(lines) + "\n"


def render_sequences(comparison: Comparison) -> str:
    """Memorized strings: what is left, and what else was lost."""
    lines = [
        "| method | shown recited | unseen recited | tokens recalled | fresh tokens | logic | arithmetic | reading |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in comparison.sequences:
        cells = (row.shown, row.hidden, row.tokens, row.fresh, row.logic, row.arithmetic, row.reading)
        lines.append(f"| {row.title} | " + " | ".join(map(_share, cells)) + " |")
    return "\n".join(lines) + "\n"


def render_vision(comparison: Comparison) -> str:
    """Wrong labels: what came back."""
    lines = ["| edit | mass kept | right label back | still as told | unseen images |", "|---|---|---|---|---|"]
    for row in comparison.vision:
        cells = " | ".join(map(_share, (row.right_again, row.still_wrong, row.unseen)))
        lines.append(f"| {row.edit} | {row.share:g} | {cells} |")
    return "\n".join(lines) + "\n"


def render_all(comparison: Comparison) -> str:
    """Every table that has rows, with its heading."""
    parts = [f"## Methods\n\n{render_table(comparison)}", f"## Search\n\n{render_search(comparison)}"]
    if comparison.sequences:
        parts.append(f"## Memorized strings\n\n{render_sequences(comparison)}")
    if comparison.vision:
        parts.append(f"## Wrong labels\n\n{render_vision(comparison)}")
    return "\n".join(parts)


def _share(share: Share) -> str:
    return f"{share.value:.2f} [{share.low:.2f}, {share.high:.2f}]"


def _trial(row: Row, place: int) -> str:
    trial = row.trials[place]
    setting = worded(trial.setting) or "as given"
    left = "diverged" if trial.recall_left is None else f"{trial.recall_left:.3f}"
    lost = "diverged" if trial.skill_lost is None else f"{trial.skill_lost:.3f}"
    mark = "yes" if trial.setting == row.chosen and trial.recall_left is not None else ""
    return f"| {row.title} | {setting} | {left} | {lost} | {trial.seconds:.0f} | {mark} |"


def _value(report: Report, measure: str) -> str:
    figure = report.figure(measure, Role.CORE)
    return "" if figure is None else f"{figure.value:.2f} [{figure.low:.2f}, {figure.high:.2f}]"


def _verdict(report: Report) -> str:
    letters = sorted({verdict.measure[0] for verdict in report.failed})
    return ", ".join(letters) if letters else "nothing"
