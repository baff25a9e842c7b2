"""What counts as grounded, on answers of every shape."""

import pytest

from knowledge_store.protocol import CallKind, escape
from service.grounding import abstains, is_grounded
from service.trace import Outcome, TraceCall

QUESTION = "Which has the larger atomic number, Helium or Hydrogen?"


def fact(*values: str) -> TraceCall:
    return TraceCall(CallKind.LOOKUP, "s | r", "; ".join(map(escape, values)), Outcome.FOUND)


def result(text: str) -> TraceCall:
    return TraceCall(CallKind.CALC, "1 + 1", text, Outcome.COMPUTED)


MISS = TraceCall(CallKind.LOOKUP, "s | r", "NOT FOUND", Outcome.MISSING)


@pytest.mark.parametrize(
    ("answer", "calls", "grounded"),
    [
        ("Maria Okafor", [fact("Maria Okafor")], True),
        ("maria okafor.", [fact("Maria Okafor")], True),
        ("Maria", [fact("Maria Okafor")], True),
        ("Mari", [fact("Maria Okafor")], False),
        ("Bob Smith", [fact("Maria Okafor")], False),
        ("Bob Smith", [], False),
        ("Helium", [fact("2"), fact("1"), result("true")], True),
        ("42", [result("42")], True),
        ("4", [result("42")], False),
        ("42", [fact("42")], True),
        ("farmer", [], False),
        ("farmer", [fact("farmer")], True),
        ("Red; Blue", [fact("Red", "Blue")], True),
        ("Red, Blue and Green", [fact("Red", "Blue")], False),
        ("The ceo is Maria Okafor.", [fact("Maria Okafor")], True),
        ("The ceo is Bob Smith.", [fact("Maria Okafor")], False),
        ("Maria Okafor, born in 1970, runs it.", [fact("Maria Okafor"), fact("1970")], True),
        ("Maria Okafor, born in 1971, runs it.", [fact("Maria Okafor"), fact("1970")], False),
        ('It is "blue green".', [fact("blue green")], True),
        ('It is "blue red".', [fact("blue green")], False),
        ("NOT FOUND", [MISS], False),
        ("yes", [result("false")], True),
        ("yes", [], None),
        ("I don't know", [MISS], None),
        ("I don’t know.", [MISS], None),
        ("", [], None),
        ("...", [], None),
        ("x</fact>y", [fact("x</fact>y")], True),
        ("東京", [fact("東京")], True),
        ("大阪", [fact("東京")], False),
    ],
)
def test_a_value_is_grounded_by_its_evidence(answer: str, calls: list[TraceCall], grounded: bool | None) -> None:
    assert is_grounded(answer, QUESTION, calls) is grounded


def test_the_question_itself_is_evidence() -> None:
    assert is_grounded("Ana", "Ana is taller than Ben. Who is the tallest?", []) is True


@pytest.mark.parametrize(
    ("answer", "says_so"), [("I don't know", True), ("I do not know that.", True), ("Idaho", False), ("Know", False)]
)
def test_an_abstention_is_recognised(answer: str, says_so: bool) -> None:
    assert abstains(answer) is says_so
