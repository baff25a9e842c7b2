"""The demo core and a real store: the memory, and nothing but the memory, brings facts back."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from trainer.evaluate.examinee import load_examinee
from trainer.evaluate.measure import as_served
from trainer.evaluate.memory import silence
from trainer.evaluate.outcome import Ledger, Role
from trainer.evaluate.profile import TEST_PROFILE
from trainer.evaluate.recovery import attack_memory, stored
from trainer.evaluate.run import Request, read_exam

ROOT = Path(__file__).parents[3]


BOTH_WAYS = pytest.mark.parametrize("way", [str, as_served])


@pytest.fixture(scope="module")
def ledger() -> Ledger:
    core = ROOT / "models" / "demo-core"
    request = Request(core, str(core), (ROOT / "knowledge" / "elements.ndjson",), TEST_PROFILE)
    exam, _ = read_exam(request)
    ledger = Ledger()
    profile = replace(TEST_PROFILE, memory_questions=12)
    for role, model in ((Role.CORE, core), (Role.BASE, ROOT / "models" / "demo-base")):
        attack_memory(exam, load_examinee(model, role), ledger, profile, lambda _: None)
    return ledger


def share(ledger: Ledger, measure: str, role: Role = Role.CORE) -> float:
    outcomes = ledger.find(measure, role)
    assert outcomes is not None
    return outcomes.mean


@BOTH_WAYS
def test_the_memory_brings_the_facts_back(ledger: Ledger, way: Callable[[str], str]):
    assert share(ledger, way("E.full")) >= 0.75
    assert share(ledger, way("E.looks_up")) >= 0.75


@BOTH_WAYS
def test_a_counterfactual_memory_is_followed(ledger: Ledger, way: Callable[[str], str]):
    assert share(ledger, way("E.counterfactual")) >= 0.75


@BOTH_WAYS
def test_without_its_facts_the_core_abstains_and_leaks_none(ledger: Ledger, way: Callable[[str], str]):
    assert share(ledger, way("E.abstains")) >= 0.75
    assert share(ledger, way("E.del_on")) <= 0.25
    assert share(ledger, way("E.del_off")) <= 0.25


def test_as_served_is_behind_the_system_prompt(ledger: Ledger):
    """The base looks up what it is asked behind that prompt, and else only what it does not know."""
    assert share(ledger, as_served("E.looks_up"), Role.BASE) >= 0.9
    assert share(ledger, "E.looks_up", Role.BASE) <= 0.6


def test_the_knock_out_takes_facts_and_leaves_reading(ledger: Ledger):
    assert share(ledger, "E.knock_fact_on") - share(ledger, "E.knock_fact_off") >= 0.5
    assert abs(share(ledger, "E.knock_reading_on") - share(ledger, "E.knock_reading_off")) <= 0.25


def test_a_deleted_fact_is_not_found_and_its_neighbour_is():
    exam, _ = read_exam(Request(ROOT, "", (ROOT / "knowledge" / "elements.ndjson",), TEST_PROFILE))
    gone, kept = exam.facts[0], exam.facts[1]
    with stored(exam.facts) as memory:
        assert memory(f"{gone.subject} | {gone.relation}") == gone.value
    with stored(exam.facts, without=[gone]) as memory:
        assert memory(f"{gone.subject} | {gone.relation}") == "NOT FOUND"
        assert memory(f"{kept.subject} | {kept.relation}") == kept.value
        assert memory("| | |") == "NOT FOUND"
    assert silence("anything") == "NOT FOUND"
