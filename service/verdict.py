"""From a finished turn to an answer: the trace joined with the lookup log, grounding, and what the question wants
done where it is missing. Pure; called once an attempt, by it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from knowledge_store.protocol import Step, Turn
from service.grounding import ABSTENTION, abstains, is_grounded
from service.memory import Memory
from service.question import Question
from service.trace import Answer, Detector, Finish, Outcome, Timings, TraceCall, TraceStep, Usage

_FAILED = (Outcome.MISSING, Outcome.AMBIGUOUS, Outcome.REFUSED)


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """A step that a detector took back: which detector, and what the core had written."""

    detector: Detector
    text: str
    reason: str


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
    asked_by: Detector = Detector.CALL,
    withdrawn: Mapping[int, Withdrawal] | None = None,
) -> Answer:
    """Make the answer."""
    asked = question.messages[-1].content
    text = turn.answer or ""
    if finish is Finish.STOP and not text:
        finish, error = Finish.ERROR, "the core ended its turn without an answer"
    steps = trace(turn.steps, memory.calls, asked_by, withdrawn or {})
    if error is not None:
        steps = _blame(steps, error)
    grounded: bool | None = None
    if text and question.knowledge.on_ungrounded != "allow":
        grounded = is_grounded(text, asked, memory.calls)
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
    )


def trace(
    steps: Sequence[Step],
    log: Sequence[TraceCall],
    asked_by: Detector,
    withdrawn: Mapping[int, Withdrawal],
) -> tuple[TraceStep, ...]:
    """Join a turn's steps with the log of its calls, which has them in the same order."""
    logged = iter(log)
    return tuple(_trace_step(index, step, logged, asked_by, withdrawn.get(index)) for index, step in enumerate(steps))


def _trace_step(
    index: int, step: Step, logged: Iterator[TraceCall], asked_by: Detector, withdrawal: Withdrawal | None
) -> TraceStep:
    calls = tuple(
        next(logged) if call.reply is not None else TraceCall(call.kind, call.body, None, None) for call in step.calls
    )
    detector = asked_by if calls else None
    if withdrawal is not None:
        return TraceStep(index, step.text, calls, withdrawal.detector, withdrawn=withdrawal.text)
    return TraceStep(index, step.text, calls, detector)


def _blame(steps: tuple[TraceStep, ...], error: str) -> tuple[TraceStep, ...]:
    """Put the error on the step where it happened: the last."""
    if not steps:
        return (TraceStep(0, "", error=error),)
    last = steps[-1]
    blamed = TraceStep(last.index, last.text, last.calls, last.detector, error, last.withdrawn)
    return (*steps[:-1], blamed)


def _must_abstain(question: Question, text: str, grounded: bool | None, calls: Sequence[TraceCall]) -> bool:
    if abstains(text) or grounded:
        return False
    knowledge = question.knowledge
    missed = any(call.outcome in _FAILED for call in calls)
    return (knowledge.on_miss == "abstain" and missed) or (knowledge.on_ungrounded == "abstain" and grounded is False)
