"""A gate that never fails is no gate: each kind of model fails where it must, and the one that never knew passes."""

import pytest

from tests.trainer.micro import Micro, Reports, examine_all
from trainer.evaluate.behaviour import recall_direct
from trainer.evaluate.outcome import Ledger, Role
from trainer.evaluate.profile import TEST_PROFILE
from trainer.evaluate.question import Exam, recall
from trainer.evaluate.relearning import attack_relearning
from trainer.evaluate.report import Report


def outside(report: Report) -> set[str]:
    """The measures that lie outside their margins."""
    return {verdict.measure for verdict in report.failed}


@pytest.fixture(scope="module")
def reports(micro: Micro) -> Reports:
    return examine_all(micro)


def share(report: Report, measure: str, role: Role = Role.CORE) -> float:
    figure = report.figure(measure, role)
    assert figure is not None
    return figure.value


def test_the_base_knew_the_facts_and_fails_in_behaviour(reports: Reports):
    assert share(reports.base, "A.recall_direct") > 0.8
    assert {"A.recall_direct", "A.forced", "A.choice", "A.best_of_k", "A.membership"} <= outside(reports.base)
    assert not reports.base.passed


def test_the_base_fails_inside(reports: Reports):
    assert "B.lens" in outside(reports.base)


def test_a_mask_passes_in_behaviour_and_fails_at_relearning(reports: Reports):
    assert share(reports.mask, "A.recall_direct") < 0.3
    assert "A.recall_direct" not in outside(reports.mask)
    assert {"C.relearn", "C.relearn_fast"} & outside(reports.mask)
    assert not reports.mask.passed


def test_relearning_brings_back_facts_that_were_not_shown_again(reports: Reports):
    assert share(reports.mask, "C.relearn") - share(reports.mask, "C.relearn", Role.CONTROL) > 0.2


def test_names_anew_leave_nothing_to_relearn(micro: Micro, reports: Reports):
    """Facts of a one-token subject live in its embedding row; without it the mask hides nothing."""
    ledger = Ledger()
    attack_relearning(
        micro.exam, micro.renamed(micro.mask, "new"), ledger, TEST_PROFILE, lambda _: None, stand_ins=False
    )
    for measure in ("C.relearn", "C.relearn_fast"):
        found = ledger.find(measure, Role.CORE)
        assert found is not None
        never_knew = share(reports.mask, measure, Role.CONTROL)
        assert found.mean <= never_knew + 0.1
        assert found.mean < share(reports.mask, measure)


def test_the_control_that_never_knew_passes(reports: Reports):
    assert outside(reports.control) == set()
    assert reports.control.passed


def test_every_figure_of_the_core_has_base_beside_it(reports: Reports):
    for figure in reports.mask.figures:
        if figure.role is Role.CORE and figure.attack in "ABD":
            assert reports.mask.figure(figure.measure, Role.BASE) is not None, figure.measure
            assert reports.mask.figure(figure.measure, Role.CONTROL) is not None, figure.measure


def test_what_was_not_asked_for_is_listed_as_not_tested(reports: Reports):
    assert any(line.startswith("E.full") for line in reports.mask.not_tested)
    assert reports.mask.attacks == "ABCD"


def test_an_evaluation_is_the_same_twice(micro):
    exams = [micro.exam, micro.exam]
    examinee = micro.examinee(micro.base)
    first, second = (recall_direct(examinee, recall(exam, exam.sample(10)), 16) for exam in exams)
    assert first == second


def test_a_question_is_held_out_for_its_fact_and_stand_ins_are_nobody(micro):
    exam: Exam = micro.exam
    known = {fact.subject for fact in exam.facts}
    for real, fake in zip(recall(exam, exam.facts), recall(exam, exam.facts, invented=True), strict=True):
        assert real.fact.subject in real.prompt.question
        assert not any(subject in fake.prompt.question for subject in known)
        templates = exam.world.phrasings.questions(real.fact.relation)
        matching = [t for t in templates if t.replace("{subject}", real.fact.subject) == real.prompt.question]
        assert any(exam.world.phrasings.is_held_out(*real.fact.key, t) for t in matching)
