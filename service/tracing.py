"""OpenTelemetry spans of answers: one for the answer, one for each of its steps, one for each call within.

An extra: where it is off, or the packages are not installed, `NoTracer` stands in. Spans carry counts, outcomes and ids
of facts, never their values. Written after the answer from its trace, so tracing costs nothing on the way; the trace
knows how long each call took and not when it began, so spans of one answer begin together, in the order of their index.
"""

import importlib.util
from typing import TYPE_CHECKING, Protocol

from service.errors import SettingsError
from service.question import Question
from service.trace import Answer, TraceStep

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer as OtelApiTracer
    from opentelemetry.trace import TracerProvider


class Tracer(Protocol):
    """Takes note of finished answers."""

    def record(self, question: Question, answer: Answer, started_ns: int) -> None:
        """Note an answer that began at `started_ns` (Unix time)."""
        ...


class NoTracer:
    """Takes note of nothing."""

    def record(self, question: Question, answer: Answer, started_ns: int) -> None:
        """Do nothing."""


class OtelTracer:
    """Makes spans with OpenTelemetry."""

    def __init__(self, provider: "TracerProvider | None" = None) -> None:
        from opentelemetry import trace

        self._tracer: OtelApiTracer = trace.get_tracer("metabolism", tracer_provider=provider)

    def record(self, question: Question, answer: Answer, started_ns: int) -> None:
        """Make the spans of an answer."""
        from opentelemetry import trace

        span = self._tracer.start_span(
            "answer",
            start_time=started_ns,
            attributes={
                "metabolism.request_id": question.request_id,
                "metabolism.core": answer.core,
                "metabolism.generation": answer.generation,
                "metabolism.finish": answer.finish.value,
                "metabolism.lookups": answer.usage.lookups,
                "gen_ai.usage.input_tokens": answer.usage.prompt_tokens,
                "gen_ai.usage.output_tokens": answer.usage.completion_tokens,
                "metabolism.engine_s": answer.timings.engine_s,
            },
        )
        end_ns = started_ns + int(answer.timings.total_s * 1e9)
        context = trace.set_span_in_context(span)
        for step in answer.steps:
            self._record_step(step, context, started_ns, end_ns)
        span.end(end_ns)

    def _record_step(self, step: TraceStep, context: object, started_ns: int, end_ns: int) -> None:
        from opentelemetry import trace
        from opentelemetry.context import Context

        assert isinstance(context, Context), "a span's context"
        span = self._tracer.start_span(
            "step",
            context=context,
            start_time=started_ns,
            attributes={
                "metabolism.step": step.index,
                "metabolism.detector": step.detector.value if step.detector else "none",
            },
        )
        inner = trace.set_span_in_context(span, context)
        for call in step.calls:
            attributes = {
                "metabolism.outcome": call.outcome.value if call.outcome else "none",
                "metabolism.match": call.match or "none",
                "metabolism.fact_ids": list(call.fact_ids),
                "metabolism.elapsed_s": call.elapsed_s,
            }
            hop = self._tracer.start_span(call.kind.value, context=inner, start_time=started_ns, attributes=attributes)
            hop.end(started_ns + int(call.elapsed_s * 1e9))
        span.end(end_ns)


def make_tracer(*, enabled: bool) -> Tracer:
    """Give the tracer that the settings ask for.

    Raises:
        SettingsError: traces are asked for and OpenTelemetry is not installed.
    """
    if not enabled:
        return NoTracer()
    if importlib.util.find_spec("opentelemetry.sdk") is None:
        raise SettingsError("--otel needs OpenTelemetry; install digital-metabolism[otel]")
    return OtelTracer()
