"""Later removals: the facts of each are asked before it, so that a method which took them out already is seen."""

from pathlib import Path

import pytest

from tests.trainer.micro import NAMES, Micro
from trainer.baselines.compare import compare
from trainer.baselines.comparison import CompareConfig
from trainer.config import parse_config
from trainer.evaluate.measure import MEASURES
from trainer.evaluate.outcome import Role
from trainer.evaluate.report import Report

BLUNT = {"name": "blunt", "title": "Blunt", "kind": "stages", "stages": [{"kind": "perturb", "noise": 0.9}]}
NOTHING = {"name": "nothing", "title": "Nothing", "kind": "none"}


def lived(micro: Micro, folder: Path, method: dict[str, object]) -> Report:
    """The report on a method that lives on."""
    content = {
        "output": str(folder / "out"), "base": {"model": str(micro.base)},
        "facts": {"files": [str(micro.facts)], "phrasings": [str(micro.phrasings)], "known_only": False},
        "streams": {"fact": {"documents": 8}, "logic": {"documents": 8}, "names": NAMES, "workers": 0},
        "compute": {"device": "cpu"}, "profile": "test", "attacks": "D",
        "methods": [method], "life": {"method": method["name"], "sizes": []},
    }  # fmt: skip
    return compare(parse_config(CompareConfig, content, "compare.yaml")).rows[0].report


def asked(report: Report, measure: str, role: Role = Role.CORE) -> float:
    """The value of a measure."""
    figure = report.figure(measure, role)
    assert figure is not None, measure
    return figure.value


@pytest.mark.parametrize(("method", "known"), [(NOTHING, True), (BLUNT, False)])
def test_the_facts_of_a_later_removal_are_asked_just_before_it(
    micro: Micro, tmp_path: Path, method: dict[str, object], known: bool
):
    report = lived(micro, tmp_path, method)
    for request in ("second", "third"):
        before, after = (asked(report, f"F.{request}_{when}") for when in ("before", "request"))
        assert asked(report, f"F.{request}_before", Role.BASE) == asked(report, f"F.{request}_request", Role.BASE) > 0.9
        if known:  # a method that takes nothing out
            assert before == after > 0.9
        else:  # one that is not local: the first removal took these facts too
            assert before < 0.3
    judged = {verdict.measure for verdict in report.verdicts}
    assert {"F.second_request", "F.third_request"} <= judged
    assert not {"F.second_before", "F.third_before"} & judged
    assert MEASURES["F.second_before"].rule == MEASURES["F.third_before"].rule == "report"
