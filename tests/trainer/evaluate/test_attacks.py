"""A gate that never fails is no gate: each kind of model fails where it must, and the one that never knew passes."""

from dataclasses import replace

import pytest

from tests.trainer.micro import Micro, Reports, examine_all
from trainer.evaluate.behaviour import recall_direct
from trainer.evaluate.examinee import Examinee
from trainer.evaluate.gate import judge
from trainer.evaluate.outcome import Ledger, Role
from trainer.evaluate.profile import TEST_PROFILE, Profile
from trainer.evaluate.question import Exam, recall
from trainer.evaluate.reasoning import attack_rings, rings
from trainer.evaluate.relearning import attack_relearning, halves, relearnings
from trainer.evaluate.report import Report
from trainer.evaluate.threshold import TEST
from trainer.fact import Target
from trainer.world.lexicon import Lexicon
from trainer.world.phrasing import read_phrasings
from trainer.world.world import World


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


def relearn_all(exam: Exam, examinee: Examinee, ledger: Ledger, profile: Profile) -> None:
    ways = relearnings(profile, examinee.role)
    attack_relearning(exam, examinee, examinee, ledger, profile, lambda _: None, ways=ways, stand_ins=False)


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


def test_the_facts_that_were_shown_are_asked_too(reports: Reports):
    """Few facts, many times each: the attack takes hold of those, in every model."""
    for role in (Role.CORE, Role.BASE, Role.CONTROL):
        assert share(reports.mask, "C.few_shown", role) > 0.5
    assert share(reports.mask, "C.few_shown", Role.CONTROL) > share(reports.mask, "C.relearn_few", Role.CONTROL) + 0.3
    assert share(reports.mask, "C.half_shown", Role.CONTROL) > share(reports.mask, "C.relearn", Role.CONTROL)


def test_what_was_never_reached_is_no_number_of_steps(reports: Reports):
    never, always = (reports.mask.figure("C.half_recovery", role) for role in (Role.CONTROL, Role.BASE))
    assert never is not None
    assert never.beyond
    assert always is not None
    assert not always.beyond
    assert always.value == 0.0


def test_another_seed_draws_other_halves(micro: Micro):
    first, second = (halves(replace(micro.exam, seed=seed)) for seed in (11, 12))
    assert set(first[0]) != set(second[0])
    ledger = Ledger()
    once = replace(TEST_PROFILE, relearn_steps=1, lora_steps=1, ten_steps=1, unrelated_steps=1, relearn_runs=2)
    exam = replace(micro.exam, seed=12)
    relearn_all(exam, micro.examinee(micro.base), ledger, once)
    found = ledger.find("C.relearn", Role.CORE)
    assert found is not None
    assert found.seeds == (12, 13)
    assert "run by run" in found.note


def test_the_base_beside_the_core_may_be_tuned_for_less(micro: Micro):
    ledger = Ledger()
    profile = replace(TEST_PROFILE, relearn_steps=4, base_steps=1)
    base = micro.examinee(micro.base, Role.BASE)
    relearn_all(micro.exam, base, ledger, profile)
    found = ledger.find("C.relearn", Role.BASE)
    assert found is not None
    assert "best of 1 steps" in found.note


def test_a_kept_fact_lies_in_the_nearest_ring_that_it_fits():
    def fact(subject: str, relation: str, value: str) -> Target:
        return Target(subject, relation, value, "atlas")

    kept = {
        "D.ring_subject": fact("Kenya", "currency", "shilling"),
        "D.ring_neighbour": fact("Nairobi", "river", "Athi"),
        "D.ring_relation": fact("France", "capital", "Paris"),
        "D.ring_far": fact("Gold", "symbol", "Au"),
    }
    world = World((), read_phrasings(()), Lexicon())
    exam = Exam(world, (fact("Kenya", "capital", "Nairobi"),), tuple(kept.values()))
    assert rings(exam) == {ring: [one] for ring, one in kept.items()}


def test_kept_facts_are_asked_by_ring_and_lost_ones_fail(micro: Micro):
    """Locality: what the base still knows of the kept facts and the core does not lies outside."""
    removed, kept = micro.exam.facts[:24], micro.exam.facts[24:]
    exam = replace(micro.exam, facts=removed, kept=kept)
    ledger = Ledger()
    for folder, role in ((micro.mask, Role.CORE), (micro.base, Role.BASE)):
        attack_rings(exam, micro.examinee(folder, role), ledger, TEST_PROFILE)
    judged = {verdict.measure: verdict for verdict in judge(ledger, TEST)}
    assert judged
    assert set(judged) <= set(rings(exam))
    assert not any(verdict.passed for verdict in judged.values()), "the mask was made to forget all of them"


def test_names_anew_leave_nothing_to_relearn(micro: Micro, reports: Reports):
    """Facts of a one-token subject live in its embedding row; without it the mask hides nothing."""
    ledger = Ledger()
    relearn_all(micro.exam, micro.renamed(micro.mask, "new"), ledger, TEST_PROFILE)
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
