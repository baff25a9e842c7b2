"""The way of one question through the service: a place at the gate, a lease of the core, an answer, a count.

Called by the routes. Knows no HTTP; the gate's refusals are errors, a finished answer is a value however it ended.
"""

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager

import structlog

from service.core import CoreSlot, ServedCore
from service.event import Event, Finished
from service.limit import Gate
from service.metric import Metrics
from service.question import Question
from service.trace import Answer
from service.tracing import Tracer

_log = structlog.get_logger("metabolism.answer")


class Serving:
    """Answers questions with whichever core is served, as many at a time as the gate lets in."""

    def __init__(self, slot: CoreSlot, gate: Gate, metrics: Metrics, tracer: Tracer, *, log_values: bool) -> None:
        self.slot = slot
        self.gate = gate
        self._metrics = metrics
        self._tracer = tracer
        self._log_values = log_values

    async def answer(self, question: Question) -> Answer:
        """Answer `question`.

        Raises:
            Busy: there is no place and none came free.
            KnowledgeError, EngineError, CoreUnusable: as `Orchestrator.answer`.
        """
        async with self._admitted() as core:
            started_ns = time.time_ns()
            answer = await core.orchestrator.answer(question)
        self._note(question, answer, started_ns)
        return answer

    async def stream(self, question: Question) -> AsyncGenerator[Event, None]:
        """Answer `question` event by event; raises as `answer`, at the first event."""
        async with self._admitted() as core:
            started_ns = time.time_ns()
            async with aclosing(core.orchestrator.stream(question)) as events:
                async for event in events:
                    if isinstance(event, Finished):
                        self._note(question, event.answer, started_ns)
                    yield event

    @asynccontextmanager
    async def _admitted(self) -> AsyncGenerator[ServedCore, None]:
        async with self.gate.place(), self.slot.lease() as core:
            yield core

    def _note(self, question: Question, answer: Answer, started_ns: int) -> None:
        self._metrics.count_answer(answer)
        self._tracer.record(question, answer, started_ns)
        values = {"question": question.messages[-1].content, "answer": answer.text} if self._log_values else {}
        _log.info(
            "answered",
            request_id=question.request_id,
            core=answer.core,
            generation=answer.generation,
            finish=answer.finish.value,
            grounded=answer.grounded,
            lookups=answer.usage.lookups,
            calcs=answer.usage.calcs,
            completion_tokens=answer.usage.completion_tokens,
            total_s=round(answer.timings.total_s, 4),
            engine_s=round(answer.timings.engine_s, 4),
            **values,
        )
