"""When things happened in one answer: seconds from its start, on a clock that never goes back.

Lives as long as one attempt, which tells it of every event and of every turn of the engine. A step begins where the one
before it ended and ends with the last that was heard of it: its text, its call or the reply. What comes in one chunk of
the engine's comes at one time.
"""

import time
from dataclasses import replace

from service.engine.base import Chunk
from service.event import Event, StepCalled, StepReplied, StepStarted, StepText, StepWithdrawn
from service.trace import EngineTurn


class Timeline:
    """A clock that starts with it, and what it showed."""

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self._step_ends_s: dict[int, float] = {}
        self.turns: list[EngineTurn] = []

    @property
    def now_s(self) -> float:
        """Seconds from the answer's start."""
        return time.perf_counter() - self._started

    def begin_turn(self, context_tokens: int) -> None:
        """Note that the engine was sent so many tokens."""
        now_s = self.now_s
        self.turns.append(EngineTurn(now_s, now_s, context_tokens, cached_tokens=None, sampled_tokens=0))

    def hear(self, chunk: Chunk | None) -> None:
        """Note what the engine gave just now; None where it ended or failed."""
        turn = self.turns[-1]
        self.turns[-1] = replace(
            turn,
            ended_s=self.now_s,
            cached_tokens=turn.cached_tokens if chunk is None else chunk.cached_tokens,
            sampled_tokens=turn.sampled_tokens + (0 if chunk is None else len(chunk.ids)),
        )

    def note(self, event: Event) -> None:
        """Note what was heard of a step just now."""
        match event:
            case StepWithdrawn(index=index):
                self._step_ends_s = {it: end_s for it, end_s in self._step_ends_s.items() if it < index}
            case StepStarted(index=index) | StepText(index=index) | StepCalled(index=index) | StepReplied(index=index):
                self._step_ends_s[index] = self.now_s
            case _:
                pass

    def step(self, index: int) -> tuple[float, float]:
        """When the step number `index` began and ended."""
        began_s = max((end_s for it, end_s in self._step_ends_s.items() if it < index), default=0.0)
        return began_s, self._step_ends_s.get(index, began_s)
