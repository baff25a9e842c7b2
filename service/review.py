"""Shows each finished step and the answer to the detectors, and knows where a step began, to take it back.

Lives as long as one attempt. Decides nothing about generation: it says what to inject, and the attempt does it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from knowledge_store.generation import Generation
from knowledge_store.protocol import Tag, render_query, unescape
from service.codec import Codec
from service.detect.base import Confirmation, Draft, Objection, StepDetector, Verdict
from service.memory import Memory
from service.trace import Detector
from service.transcript import Transcript


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """A step that a detector took back: which detector and why, and what the core had written."""

    detector: Detector
    reason: str
    text: str


class Reviewer:
    """Follows one transcript."""

    def __init__(
        self, question: str, codec: Codec, transcript: Transcript, memory: Memory, detectors: Sequence[StepDetector]
    ) -> None:
        self._question = question
        self._codec = codec
        self._transcript = transcript
        self._memory = memory
        self._detectors = detectors
        self._mark = len(transcript.ids)
        self._seen_steps = 0
        self._seen_calls = 0
        self._objected_at: set[int] = set()
        self.withdrawn: dict[int, Withdrawal] = {}
        self.confirmed: dict[int, Detector] = {}

    @property
    def active(self) -> bool:
        """Whether there is any detector to ask."""
        return bool(self._detectors)

    @property
    def needs_logprobs(self) -> bool:
        """Whether any detector reads the tokens' probabilities."""
        return any(it.needs_logprobs for it in self._detectors)

    @property
    def at_line_start(self) -> bool:
        """Whether all that was read is part of steps that were let pass."""
        return len(self._transcript.ids) == self._mark

    def review(self, *, ended: bool) -> Objection | None:
        """Ask about the step that the last token finished, if it did; with `ended`, about the answer."""
        parser = self._transcript.parser
        if len(parser.steps) > self._seen_steps:
            step = parser.steps[-1]
            verdict = self._judge(step.text, is_answer=False)
            if not isinstance(verdict, Objection):
                self._seen_steps, self._mark = len(parser.steps), len(self._transcript.ids)
                self._seen_calls = len(self._memory.calls)
                return None
            return verdict
        if ended and parser.pending is None and not parser.thinking:
            verdict = self._judge(unescape(self._answer()), is_answer=True)
            return verdict if isinstance(verdict, Objection) else None
        return None

    def _answer(self) -> str:
        """What the core wrote as its answer: all since the last step's end but the tags."""
        pieces = self._codec.pieces(self._transcript.ids[self._mark :])
        return "".join(piece for piece in pieces if not isinstance(piece, Tag)).strip()

    def withdraw(self, objection: Objection) -> list[int]:
        """Take the step back to its beginning; return the ids to inject in its place."""
        transcript, start = self._transcript, self._mark
        text = self._codec.decode([id_ for id_ in transcript.ids[start:] if id_ not in self._codec.eos_ids])
        transcript.rewind(start)
        self._memory.forget(self._seen_calls)
        self._objected_at.add(start)
        step = len(transcript.parser.steps)
        self.withdrawn[step] = Withdrawal(objection.detector, objection.reason, text.strip())
        opening = [] if transcript.parser.thinking else self._codec.tag(Tag.THINK) + self._codec.encode_trusted("\n")
        if objection.query is not None:
            return opening + self._codec.open_call(render_query(objection.query))
        return opening or self._codec.tag(Tag.LOOKUP)

    def _judge(self, text: str, *, is_answer: bool) -> Verdict:
        """Ask each detector; a step that was taken back once is not taken back again."""
        if not text or self._mark in self._objected_at:
            return None
        ids = self._transcript.ids[self._mark :]
        logprobs = self._transcript.logprobs[self._mark :]
        sampled = [(id_, p) for id_, p in zip(ids, logprobs, strict=True) if p is not None]
        draft = Draft(
            question=self._question,
            text=text,
            is_answer=is_answer,
            tokens=tuple(self._codec.decode([id_]) for id_, _ in sampled),
            logprobs=tuple(p for _, p in sampled),
            calls=self._memory.calls,
            own_calls=len(self._memory.calls) - self._seen_calls,
        )
        step = len(self._transcript.parser.steps) - (not is_answer)
        for detector in self._detectors:
            verdict = detector.judge(draft, self._generation)
            if isinstance(verdict, Confirmation):
                self._memory.cite(verdict.facts, step=step)
                self.confirmed[step] = verdict.detector
            if verdict is not None:
                return verdict
        return None

    @property
    def _generation(self) -> Generation:
        return self._memory.generation
