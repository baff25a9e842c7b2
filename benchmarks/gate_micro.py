"""The gate on models whose truth is known: a base, a core that only masks, and a control that never knew.

Makes the micro world of the tests and prints the table of docs/gate.md; bold lies outside its margin. The last line is
JSON::

    python -m benchmarks.gate_micro
"""

import json
import tempfile
from pathlib import Path

from tests.trainer.micro import Reports, examine_all, make_micro
from trainer.evaluate.measure import MEASURES
from trainer.evaluate.outcome import Role
from trainer.evaluate.report import Report


def main() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as folder:
        reports = examine_all(make_micro(Path(folder)))
    print("| | measure | base | mask | never knew |\n|---|---|---|---|---|")
    for measure in MEASURES.values():
        if cells := _cells(reports, measure.name):
            print(f"| {measure.name[0]} | {measure.title} | {' | '.join(cells)} |")
    failed = {
        name: [verdict.measure for verdict in report.failed]
        for name, report in (("base", reports.base), ("mask", reports.mask), ("never knew", reports.control))
    }
    print(json.dumps({"benchmark": "gate_micro", "failed": failed}))


def _cells(reports: Reports, measure: str) -> list[str]:
    cells = [_cell(report, measure) for report in (reports.base, reports.mask, reports.control)]
    return [] if set(cells) == {""} else cells


def _cell(report: Report, measure: str) -> str:
    figure = report.figure(measure, Role.CORE)
    if figure is None:
        return ""
    if figure.beyond:
        return f"> {figure.value:g}"
    outside = measure in {verdict.measure for verdict in report.failed}
    return f"**{figure.value:.2f}**" if outside else f"{figure.value:.2f}"


if __name__ == "__main__":
    main()
