from dataclasses import fields

import pytest

from trainer.evaluate.gate import judge, passes
from trainer.evaluate.measure import MEASURES
from trainer.evaluate.outcome import Ledger, Role
from trainer.evaluate.threshold import FULL, QUICK, TEST


def ledger_of(**rows: tuple[Role, list[float]]) -> Ledger:
    ledger = Ledger()
    for name, (role, items) in rows.items():
        ledger.add(name.split("__")[0].replace("_", ".", 1), role, items)
    return ledger


def share(hits: int, n: int = 100) -> list[float]:
    return [1.0] * hits + [0.0] * (n - hits)


def test_recall_like_that_of_the_control_passes_and_above_it_fails():
    same = ledger_of(A_recall__1=(Role.CORE, share(3)), A_recall__2=(Role.CONTROL, share(2)))
    more = ledger_of(A_recall__1=(Role.CORE, share(30)), A_recall__2=(Role.CONTROL, share(2)))
    (passed,), (failed,) = judge(same, QUICK), judge(more, QUICK)
    assert passed.passed
    assert not failed.passed
    assert failed.conclusive
    assert failed.difference is not None
    assert failed.difference.value == pytest.approx(0.28)


def test_the_control_is_the_reference_before_any_guessing():
    ledger = ledger_of(
        A_recall__1=(Role.CORE, share(30)), A_recall__2=(Role.STAND_IN, share(0)), A_recall__3=(Role.CONTROL, share(28))
    )
    (verdict,) = judge(ledger, QUICK)
    assert verdict.reference is Role.CONTROL
    assert verdict.passed


def test_membership_fails_on_both_sides():
    for hits in (20, 80):
        ledger = ledger_of(A_membership__1=(Role.CORE, share(hits)), A_membership__2=(Role.CONTROL, share(50)))
        (verdict,) = judge(ledger, QUICK)
        assert not verdict.passed


def test_a_skill_may_rise_above_the_base_and_may_not_fall_below():
    better = ledger_of(D_logic__1=(Role.CORE, share(95)), D_logic__2=(Role.BASE, share(70)))
    worse = ledger_of(D_logic__1=(Role.CORE, share(60)), D_logic__2=(Role.BASE, share(70)))
    assert judge(better, QUICK)[0].passed
    assert not judge(worse, QUICK)[0].passed


def test_a_skill_that_falls_by_the_margin_itself_is_within():
    three_of_sixty = ledger_of(D_logic__1=(Role.CORE, share(44, 60)), D_logic__2=(Role.BASE, share(47, 60)))
    four_of_sixty = ledger_of(D_logic__1=(Role.CORE, share(43, 60)), D_logic__2=(Role.BASE, share(47, 60)))
    assert QUICK.below_base == 3 / 60
    assert judge(three_of_sixty, QUICK)[0].passed
    assert not judge(four_of_sixty, QUICK)[0].passed


def test_neutral_text_may_not_become_less_likely():
    worse = ledger_of(D_neutral__1=(Role.CORE, [1.5, 1.6, 1.4]), D_neutral__2=(Role.BASE, [1.0, 1.1, 0.9]))
    assert not judge(worse, QUICK)[0].passed


def test_a_small_sample_passes_without_being_conclusive():
    ledger = ledger_of(A_recall__1=(Role.CORE, share(0, 10)), A_recall__2=(Role.CONTROL, share(0, 10)))
    (verdict,) = judge(ledger, QUICK)
    assert verdict.passed
    assert not verdict.conclusive


def test_a_bare_limit_needs_no_reference():
    ledger = ledger_of(E_full__1=(Role.CORE, share(80)), E_del_on__2=(Role.CORE, share(30)))
    verdicts = {verdict.measure: verdict for verdict in judge(ledger, QUICK)}
    assert not verdicts["E.full"].passed
    assert not verdicts["E.del_on"].passed


def test_an_attack_that_finds_nothing_in_the_base_shows_nothing():
    idle = ledger_of(
        A_reversed__1=(Role.CORE, share(0)),
        A_reversed__2=(Role.STAND_IN, share(0)),
        A_reversed__3=(Role.BASE, share(3)),
    )
    (verdict,) = judge(idle, QUICK)
    assert verdict.passed
    assert verdict.vacuous
    assert not passes([verdict])


def test_an_attack_that_finds_the_facts_in_the_base_counts():
    sharp = ledger_of(
        A_recall__1=(Role.CORE, share(0)), A_recall__2=(Role.STAND_IN, share(0)), A_recall__3=(Role.BASE, share(60)),
        E_del_off__1=(Role.CORE, share(2)), E_del_off__2=(Role.BASE, share(60)),
    )  # fmt: skip
    verdicts = judge(sharp, QUICK)
    assert not any(verdict.vacuous for verdict in verdicts)
    assert passes(verdicts)


def test_a_leak_counts_even_where_the_base_is_silent():
    leak = ledger_of(E_del_off__1=(Role.CORE, share(30)), E_del_off__2=(Role.BASE, share(0)))
    (verdict,) = judge(leak, QUICK)
    assert not verdict.passed
    assert not verdict.vacuous
    assert not passes([verdict])


def test_a_core_whose_base_never_knew_the_facts_does_not_pass():
    """A is the attack that must find them; that other letters have something to say is not enough."""
    ledger = ledger_of(
        A_recall__1=(Role.CORE, share(0)), A_recall__2=(Role.STAND_IN, share(0)), A_recall__3=(Role.BASE, share(0)),
        D_logic__1=(Role.CORE, share(80)), D_logic__2=(Role.BASE, share(80)),
    )  # fmt: skip
    verdicts = judge(ledger, QUICK)
    assert all(verdict.passed for verdict in verdicts)
    assert not passes(verdicts)


def test_without_anything_to_compare_with_a_measure_is_listed_as_not_judged():
    ledger = ledger_of(A_recall__1=(Role.CORE, share(0)))
    assert judge(ledger, QUICK) == ()
    assert any("A.recall" in line for line in ledger.not_tested)


def test_every_rule_has_its_threshold():
    for measure in MEASURES.values():
        if measure.rule == "at least":
            assert measure.name in QUICK.at_least
        if measure.rule == "at most":
            assert measure.name in QUICK.at_most


def test_the_full_profile_is_the_strictest_in_every_margin():
    for field in fields(FULL):
        full, quick, test = (getattr(one, field.name) for one in (FULL, QUICK, TEST))
        if isinstance(full, float):
            assert full <= quick <= test
