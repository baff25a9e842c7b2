"""What happens while an answer is made, in order: steps, their calls and replies, the answer, the end.

Values for whoever streams. `Finished` comes last, once, whatever happened; the texts before it add up to its steps and
answer except for steps that were withdrawn.
"""

from dataclasses import dataclass

from knowledge_store.protocol import CallKind
from service.trace import Answer, Detector, TraceCall


@dataclass(frozen=True, slots=True)
class StepStarted:
    """The core began its step number `index`."""

    index: int


@dataclass(frozen=True, slots=True)
class StepText:
    """More prose of a step."""

    index: int
    text: str


@dataclass(frozen=True, slots=True)
class StepCalled:
    """A step asks its memory or ALU."""

    index: int
    kind: CallKind
    body: str


@dataclass(frozen=True, slots=True)
class StepReplied:
    """The reply to the last call."""

    index: int
    call: TraceCall


@dataclass(frozen=True, slots=True)
class StepWithdrawn:
    """A detector took the step back; its prose so far is void and it starts again."""

    index: int
    detector: Detector
    reason: str


@dataclass(frozen=True, slots=True)
class AnswerText:
    """More text of the answer."""

    text: str


@dataclass(frozen=True, slots=True)
class Finished:
    """The end."""

    answer: Answer


Event = StepStarted | StepText | StepCalled | StepReplied | StepWithdrawn | AnswerText | Finished
