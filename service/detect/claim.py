"""Claim: a step or an answer that states a value for what the memory knows is held against the memory.

Confirmed, it is cited; contradicted, it is taken back and looked up. A step that repeats what was injected, computed or
asked claims nothing of its own. The relation that is meant is told by its name, or by the values it has elsewhere;
where neither tells, the core is made to ask.
"""

from knowledge_store.fact import Fact
from knowledge_store.generation import Generation
from knowledge_store.protocol import ValueQuery
from service.detect.base import Confirmation, Draft, Objection, Verdict
from service.detect.spot import Subject, spot_subjects
from service.grounding import abstains, is_grounded, stands_in
from service.trace import Detector

_LONGEST_VALUE_WORDS = 12


class ClaimDetector:
    """Checks claims against the memory."""

    needs_logprobs = False

    def judge(self, draft: Draft, generation: Generation) -> Verdict:
        """Hold `draft` against what `generation` knows of the subjects that it, or the question, names."""
        if draft.own_calls or abstains(draft.text) or is_grounded(draft.text, draft.question, draft.calls) is not False:
            return None
        for subject in spot_subjects(f"{draft.text}\n{draft.question}", generation):
            claim = _remove(draft.text, subject.name)
            confirming = tuple(fact for fact in subject.facts if stands_in(fact.value, claim))
            if confirming:
                return Confirmation(Detector.CLAIM, _meant(confirming, draft.question))
            if verdict := _contradict(claim, draft, subject, generation):
                return verdict
        return None


def _contradict(claim: str, draft: Draft, subject: Subject, generation: Generation) -> Objection | None:
    relations = list(dict.fromkeys(fact.relation for fact in subject.facts))
    named = [it for it in relations if stands_in(it, draft.question) or stands_in(it, draft.text)]
    if not named and draft.is_answer:
        named = [it for it in relations if generation.facts(relation=it, value=claim.strip(" .\n"), limit=1).facts]
    if len(named) == 1:
        reason = f"it states another {named[0]} of {subject.name} than the memory holds, or one it does not know"
        return Objection(Detector.CLAIM, reason, ValueQuery(subject.name, named[0]))
    if draft.is_answer and len(claim.split()) <= _LONGEST_VALUE_WORDS:
        return Objection(Detector.CLAIM, f"it states a value for {subject.name} that the memory does not hold")
    return None


def _meant(facts: tuple[Fact, ...], question: str) -> tuple[Fact, ...]:
    """Of several facts with the same value, take those whose relation the question names, if it names any."""
    return tuple(fact for fact in facts if stands_in(fact.relation, question)) or facts[:1]


def _remove(text: str, name: str) -> str:
    return text.replace(name, " ")
