"""OpenTelemetry spans of answers: one for the answer, one for each step, one for each hop (a call, an engine's turn).

An extra: where it is off, or the packages are not installed, `NoTracer` stands in. Spans carry counts, outcomes and ids
of facts, never their values. Written after the answer from its trace, so tracing costs nothing on the way. Steps follow
one another inside the answer. Calls lie inside their step; so do the engine's turns, except those that wrote more than
one step or the answer, which lie inside the answer.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from service.errors import SettingsError
from service.question import Question
from service.trace import Answer, EngineTurn, TraceCall, TraceStep

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Tracer as OtelApiTracer
    from opentelemetry.trace import TracerProvider
    from opentelemetry.util.types import AttributeValue


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
        attributes: dict[str, AttributeValue] = {
            "metabolism.request_id": question.request_id,
            "metabolism.core": answer.core,
            "metabolism.generation": answer.generation,
            "metabolism.finish": answer.finish.value,
            "metabolism.lookups": answer.usage.lookups,
            "gen_ai.usage.input_tokens": answer.usage.prompt_tokens,
            "gen_ai.usage.output_tokens": answer.usage.completion_tokens,
            "metabolism.engine_s": answer.timings.engine_s,
        }
        end_s = answer.timings.total_s
        with self._span("answer", None, started_ns, 0.0, end_s, attributes) as whole:
            for step in answer.steps:
                turns = [turn for turn in answer.turns if _lies_in(turn, step)]
                self._record_step(step, turns, whole, started_ns)
            for turn in answer.turns:
                if not any(_lies_in(turn, step) for step in answer.steps):
                    self._record_turn(turn, whole, started_ns)

    def _record_step(self, step: TraceStep, turns: Sequence[EngineTurn], whole: "Context", started_ns: int) -> None:
        attributes: dict[str, AttributeValue] = {
            "metabolism.step": step.index,
            "metabolism.detector": step.detector.value if step.detector else "none",
        }
        with self._span("step", whole, started_ns, step.began_s, step.ended_s, attributes) as within:
            for turn in turns:
                self._record_turn(turn, within, started_ns)
            for call in step.calls:
                self._record_call(call, within, started_ns)

    def _record_turn(self, turn: EngineTurn, within: "Context", started_ns: int) -> None:
        attributes: dict[str, AttributeValue] = {
            "gen_ai.usage.input_tokens": turn.context_tokens,
            "gen_ai.usage.output_tokens": turn.sampled_tokens,
        }
        if turn.cached_tokens is not None:
            attributes["metabolism.cached_tokens"] = turn.cached_tokens
        with self._span("engine", within, started_ns, turn.began_s, turn.ended_s, attributes):
            pass

    def _record_call(self, call: TraceCall, within: "Context", started_ns: int) -> None:
        attributes: dict[str, AttributeValue] = {
            "metabolism.outcome": call.outcome.value if call.outcome else "none",
            "metabolism.match": call.match or "none",
            "metabolism.fact_ids": list(call.fact_ids),
        }
        with self._span(call.kind.value, within, started_ns, call.began_s, call.began_s + call.elapsed_s, attributes):
            pass

    @contextmanager
    def _span(
        self,
        name: str,
        parent: "Context | None",
        started_ns: int,
        began_s: float,
        ended_s: float,
        attributes: "Mapping[str, AttributeValue]",
    ) -> "Iterator[Context]":
        """Make a span from `began_s` to `ended_s` after the answer's start; give the context of those inside."""
        from opentelemetry import trace

        began_ns = started_ns + round(began_s * 1e9)
        span = self._tracer.start_span(name, context=parent, start_time=began_ns, attributes=dict(attributes))
        yield trace.set_span_in_context(span, parent)
        span.end(started_ns + round(ended_s * 1e9))


def _lies_in(turn: EngineTurn, step: TraceStep) -> bool:
    return step.began_s <= turn.began_s and turn.ended_s <= step.ended_s


def make_tracer(*, enabled: bool) -> Tracer:
    """Give the tracer that the settings ask for.

    Raises:
        SettingsError: traces are asked for and OpenTelemetry is not installed.
    """
    if not enabled:
        return NoTracer()
    try:
        return OtelTracer(_provider())
    except ImportError as error:
        raise SettingsError(f"traces (otel) need OpenTelemetry ({error}); install digital-metabolism[otel]") from error


def _provider() -> "TracerProvider":
    """Give the provider that this process was started under, or one that sends spans as the OTEL_* variables say."""
    from opentelemetry import trace
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    current = trace.get_tracer_provider()
    if isinstance(current, TracerProvider):
        return current
    provider = TracerProvider(resource=Resource({"service.name": "metabolism"}).merge(OTELResourceDetector().detect()))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider
