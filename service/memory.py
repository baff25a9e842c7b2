"""Answers the calls of one turn, and keeps the log of it: the one source of traces and citations.

Between a pinned generation of the store and the ALU on one side and the orchestrator on the other. A miss is a value
here; nothing that a core writes raises.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import assert_never

from knowledge_store.errors import ProtocolError
from knowledge_store.fact import Fact
from knowledge_store.generation import Generation
from knowledge_store.lookup import Ambiguous, Found, Missing
from knowledge_store.protocol import NOT_FOUND, Call, CallKind, parse_query
from service import alu
from service.timeline import Timeline
from service.trace import Outcome, TraceCall, UsedFact


class Memory:
    """A generation and the ALU, with the log of what was asked of them."""

    def __init__(self, generation: Generation, timeline: Timeline) -> None:
        self.generation = generation
        self._timeline = timeline
        self.facts: list[UsedFact] = []
        self.calls: list[TraceCall] = []
        self.confirmed: list[str] = []
        """Values that the core stated by itself and the generation holds."""
        self.elapsed_s = 0.0

    def reply(self, call: Call, *, step: int) -> TraceCall:
        """Look up or compute what `call` asks, for the step number `step`."""
        began_s = self._timeline.now_s
        match call.kind:
            case CallKind.LOOKUP:
                answered = self._look_up(call.body, step)
            case CallKind.CALC:
                answered = _compute(call.body)
            case _:
                assert_never(call.kind)
        elapsed_s = self._timeline.now_s - began_s
        self.elapsed_s += elapsed_s
        logged = replace(answered, began_s=began_s, elapsed_s=elapsed_s)
        self.calls.append(logged)
        return logged

    def cite(self, facts: Sequence[Fact], *, step: int) -> None:
        """Log facts that confirm what the step number `step` states without having asked."""
        self.facts += [self._used(fact, step) for fact in facts]
        self.confirmed += [fact.value for fact in facts]

    def forget(self, length: int) -> None:
        """Drop every call but the first `length` of the log, with the facts they gave: their step was taken back."""
        dropped = {fact_id for call in self.calls[length:] for fact_id in call.fact_ids}
        kept = {fact_id for call in self.calls[:length] for fact_id in call.fact_ids}
        del self.calls[length:]
        self.facts = [fact for fact in self.facts if fact.fact_id not in dropped - kept]

    def count(self, kind: CallKind) -> int:
        """How many calls of `kind` were answered."""
        return sum(call.kind is kind for call in self.calls)

    def _look_up(self, body: str, step: int) -> TraceCall:
        try:
            query = parse_query(body)
        except ProtocolError as error:
            return TraceCall(CallKind.LOOKUP, body, NOT_FOUND, Outcome.REFUSED, detail=str(error))
        outcome = self.generation.lookup(query)
        match outcome:
            case Found(facts=facts, match=match, score=score, text=text):
                self.facts += [self._used(fact, step) for fact in facts]
                ids = tuple(fact.fact_id for fact in facts)
                return TraceCall(CallKind.LOOKUP, body, text, Outcome.FOUND, match.value, score, ids)
            case Missing(text=text):
                return TraceCall(CallKind.LOOKUP, body, text, Outcome.MISSING)
            case Ambiguous(facts=facts, match=match, score=score, text=text):
                near = "; ".join(f"{fact.subject} | {fact.relation}" for fact in facts[:5])
                return TraceCall(
                    CallKind.LOOKUP, body, text, Outcome.AMBIGUOUS, match.value, score, detail=f"could be: {near}"
                )
            case _:
                assert_never(outcome)

    def _used(self, fact: Fact, step: int) -> UsedFact:
        return UsedFact(
            fact_id=fact.fact_id,
            module=fact.module,
            generation=self.generation.number,
            subject=fact.subject,
            relation=fact.relation,
            value=fact.value,
            source=fact.source,
            step=step,
        )


def _compute(body: str) -> TraceCall:
    result = alu.compute(body)
    match result:
        case alu.Computed(text):
            return TraceCall(CallKind.CALC, body, text, Outcome.COMPUTED)
        case alu.Refused(reason, text):
            return TraceCall(CallKind.CALC, body, text, Outcome.REFUSED, detail=reason)
        case _:
            assert_never(result)
