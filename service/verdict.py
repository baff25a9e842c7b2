"""From a finished turn to an answer: the trace joined with the lookup log, grounding, and what the question wants
done where it is missing. Pure; called once an attempt, by it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from knowledge_store.protocol import Step, Turn
from service.grounding import ABSTENTION, abstains, is_grounded
from service.memory import Memory
from service.question import Question
from service.review import Reviewer, Withdrawal
from service.timeline import Timeline
from service.trace import Answer, Detector, Finish, Outcome, Timings, TraceCall, TraceStep, Usage

_FAILED = (Outcome.MISSING, Outcome.AMBIGUOUS, Outcome.REFUSED)


def assemble(
    question: Question,
    turn: Turn,
    memory: Memory,
    *,
    core: str,
    finish: Finish,
    error: str | None,
    unavailable: bool,
    usage: Usage,
    timings: Timings,
    asked_by: Detector,
    reviewer: Reviewer,
    timeline: Timeline,
) -> Answer:
    """Make the answer. `asked_by` says how the core came to call by itself."""
    asked = question.messages[-1].content
    text = turn.answer or ""
    if finish is Finish.STOP and not text:
        finish, error = Finish.ERROR, "the core ended its turn without an answer"
    steps = trace(turn.steps, memory.calls, asked_by, reviewer.withdrawn, reviewer.confirmed, timeline)
    if error is not None:
        steps = _blame(steps, error, timings.total_s)
    grounded: bool | None = None
    if text and question.knowledge.on_ungrounded != "allow":
        grounded = is_grounded(text, asked, memory.calls, memory.confirmed)
    if finish is Finish.STOP and _must_abstain(question, text, grounded, memory.calls):
        text, grounded = ABSTENTION, None
    return Answer(
        text=text,
        grounded=grounded,
        steps=steps,
        facts=tuple(memory.facts),
        generation=memory.generation.number,
        core=core,
        usage=usage,
        timings=timings,
        finish=finish,
        error=error,
        unavailable=unavailable,
        turns=tuple(timeline.turns),
    )


def trace(
    steps: Sequence[Step],
    log: Sequence[TraceCall],
    asked_by: Detector,
    withdrawn: Mapping[int, Withdrawal],
    confirmed: Mapping[int, Detector],
    timeline: Timeline,
) -> tuple[TraceStep, ...]:
    """Join a turn's steps with the log of its calls, which has them in the same order."""
    logged = iter(log)
    traced: list[TraceStep] = []
    for index, step in enumerate(steps):
        began_s, ended_s = timeline.step(index)
        calls = tuple(
            TraceCall(call.kind, call.body, None, None, began_s=ended_s) if call.reply is None else next(logged)
            for call in step.calls
        )
        withdrawal = withdrawn.get(index)
        detector = asked_by if calls else confirmed.get(index)
        if withdrawal is not None:
            detector = withdrawal.detector
        text = None if withdrawal is None else withdrawal.text
        traced.append(TraceStep(index, step.text, calls, detector, withdrawn=text, began_s=began_s, ended_s=ended_s))
    return tuple(traced)


def _blame(steps: tuple[TraceStep, ...], error: str, ended_s: float) -> tuple[TraceStep, ...]:
    """Put the error on the step where it happened: the last, which the answer ended with."""
    if not steps:
        return (TraceStep(0, "", error=error, ended_s=ended_s),)
    return (*steps[:-1], replace(steps[-1], error=error, ended_s=ended_s))


def _must_abstain(question: Question, text: str, grounded: bool | None, calls: Sequence[TraceCall]) -> bool:
    if abstains(text) or grounded:
        return False
    knowledge = question.knowledge
    missed = any(call.outcome in _FAILED for call in calls)
    return (knowledge.on_miss == "abstain" and missed) or (knowledge.on_ungrounded == "abstain" and grounded is False)
