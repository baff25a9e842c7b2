"""A gate that never fails is no gate: each kind of model fails where it must, and the one that never knew passes."""

import pytest

from trainer.evaluate.behaviour import recall_direct
from trainer.evaluate.outcome import Role
from trainer.evaluate.question import Exam, recall
from trainer.evaluate.report import Report
from trainer.evaluate.run import evaluate


def outside(report: Report) -> set[str]:
    """The measures that lie outside their margins."""
    return {verdict.measure for verdict in report.failed}


@pytest.fixture(scope="module")
def of_base(micro) -> Report:
    return evaluate(micro.request(micro.base, micro.control))


@pytest.fixture(scope="module")
def of_mask(micro) -> Report:
    return evaluate(micro.request(micro.mask, micro.control))


@pytest.fixture(scope="module")
def of_control(micro) -> Report:
    return evaluate(micro.request(micro.control))


def share(report: Report, measure: str, role: Role = Role.CORE) -> float:
    figure = report.figure(measure, role)
    assert figure is not None
    return figure.value


def test_the_base_knew_the_facts_and_fails_in_behaviour(of_base: Report):
    assert share(of_base, "A.recall_direct") > 0.8
    assert {"A.recall_direct", "A.forced", "A.choice", "A.best_of_k", "A.membership"} <= outside(of_base)
    assert not of_base.passed


def test_the_base_fails_inside(of_base: Report):
    assert "B.lens" in outside(of_base)


def test_a_mask_passes_in_behaviour_and_fails_at_relearning(of_mask: Report):
    assert share(of_mask, "A.recall_direct") < 0.3
    assert "A.recall_direct" not in outside(of_mask)
    assert {"C.relearn", "C.relearn_fast"} & outside(of_mask)
    assert not of_mask.passed


def test_relearning_brings_back_facts_that_were_not_shown_again(of_mask: Report):
    gap = share(of_mask, "C.relearn_fast") - share(of_mask, "C.relearn_fast", Role.CONTROL)
    assert gap > 0.2


def test_the_control_that_never_knew_passes(of_control: Report):
    assert outside(of_control) == set()
    assert of_control.passed


def test_every_figure_of_the_core_has_base_beside_it(of_mask: Report):
    for figure in of_mask.figures:
        if figure.role is Role.CORE and figure.attack in "ABD":
            assert of_mask.figure(figure.measure, Role.BASE) is not None, figure.measure
            assert of_mask.figure(figure.measure, Role.CONTROL) is not None, figure.measure


def test_what_was_not_asked_for_is_listed_as_not_tested(of_mask: Report):
    assert any(line.startswith("E.full") for line in of_mask.not_tested)
    assert of_mask.attacks == "ABCD"


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
