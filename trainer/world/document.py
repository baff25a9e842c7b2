"""What a document is: a dialogue whose turns the protocol renders, or a stretch of prose.

A document knows its claims: every (subject, relation, value) that it states, or asks about by its value («Is Paris the
capital of France?»), so that a stream can prove that it carries no target fact. Turning a document into text with
marks of who wrote what is `chat.py`'s task.
"""

from dataclasses import dataclass

from knowledge_store.protocol import Call, CallKind, Step, SubjectQuery, Turn, ValueQuery, render_query, render_values

UNKNOWN = "I don't know"
_LEADS = ("I need", "Next I need", "Then I need")


@dataclass(frozen=True, slots=True)
class Claim:
    """A statement about the world, true, counterfactual or about nobody."""

    subject: str
    relation: str
    value: str


@dataclass(frozen=True, slots=True)
class Exchange:
    """A question and the turn that answers it."""

    question: str
    turn: Turn


@dataclass(frozen=True, slots=True)
class Document:
    """One document. `tools` says that the system prompt switches the tools on; `prose` is set where nobody speaks."""

    kind: str
    exchanges: tuple[Exchange, ...] = ()
    claims: tuple[Claim, ...] = ()
    tools: bool = False
    prose: str = ""


def answer(text: str, *steps: Step) -> Turn:
    """A turn that ends in `text`."""
    return Turn(steps, text)


def dialogue(kind: str, question: str, turn: Turn, *claims: Claim, tools: bool = False) -> Document:
    """A document of one exchange."""
    return Document(kind, (Exchange(question, turn),), claims, tools)


def need(claim: Claim, place: int = 0, *, found: bool = True) -> Step:
    """The step that reads a claim from memory; `place` is its number among the reads of the turn."""
    lead = _LEADS[min(place, len(_LEADS) - 1)]
    query = render_query(ValueQuery(claim.subject, claim.relation))
    reply = render_values([claim.value] if found else [])
    return Step((f"{lead} the {claim.relation} of {claim.subject}.", Call(CallKind.LOOKUP, query, reply)))


def need_subject(claim: Claim) -> Step:
    """The step that asks which subject has a value."""
    query = render_query(SubjectQuery(claim.relation, claim.value))
    call = Call(CallKind.LOOKUP, query, render_values([claim.subject]))
    return Step((f"I need the entity whose {claim.relation} is {claim.value}.", call))


def need_list(subject: str, relation: str, values: list[str]) -> Step:
    """The step that reads a relation of several values."""
    query = render_query(ValueQuery(subject, relation))
    return Step((f"I need the {relation} of {subject}.", Call(CallKind.LOOKUP, query, render_values(values))))


def compute(expression: str, result: str, lead: str = "Compute.") -> Step:
    """The step that lets the ALU work."""
    return Step((lead, Call(CallKind.CALC, expression, result)))


def truth(holds: bool) -> str:
    """How the ALU writes a truth value."""
    return "true" if holds else "false"


def yes_no(holds: bool) -> str:
    """How an answer says it."""
    return "yes" if holds else "no"
