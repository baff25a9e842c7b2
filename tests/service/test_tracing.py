"""Spans as a trace viewer gets them: nested, one after another, within their answer."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import aclosing
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from knowledge_store.store import Store
from service.codec import Codec, Message
from service.core import CoreSlot, ServedCore
from service.detect.base import StepDetector
from service.detect.claim import ClaimDetector
from service.engine.base import Engine
from service.limit import Gate
from service.metric import Metrics
from service.orchestrator import Orchestrator
from service.question import Limits, Question
from service.serving import Serving
from service.tracing import OtelTracer
from tests.service.api.conftest import serving, wait_until
from tests.service.facts import put
from tests.service.scripted import END, ScriptedEngine

TWO_HOPS = "What is the capital of the birthplace of Ana Silva?"


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "facts.sqlite") as opened:
        put(opened, "Ana Silva", "birthplace", "Peru", "people")
        put(opened, "Peru", "capital", "Lima", "geography")
        yield opened


def serve(
    exporter: InMemorySpanExporter,
    engine: Engine,
    codec: Codec,
    store: Store,
    detectors: Sequence[StepDetector] = (),
) -> Serving:
    """The way of a question through the service, with its spans kept in memory."""
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    orchestrator = Orchestrator(engine, codec, store, core="core", detectors=detectors)
    core = ServedCore("core", Path("core"), None, engine, "a test", orchestrator, created=0)
    return Serving(CoreSlot(core), Gate(1, 1, 1.0), Metrics(), OtelTracer(provider), log_values=False)


def ask(text: str, *, limits: Limits | None = None) -> Question:
    return Question((Message("user", text),), request_id="find-me", limits=limits or Limits())


def times(span: ReadableSpan) -> tuple[int, int]:
    assert span.start_time is not None
    assert span.end_time is not None
    return span.start_time, span.end_time


def read(exporter: InMemorySpanExporter) -> tuple[ReadableSpan, dict[int, list[ReadableSpan]]]:
    """The answer's span, and the children of each span in the order of their start."""
    spans = exporter.get_finished_spans()
    children: dict[int, list[ReadableSpan]] = {span.context.span_id: [] for span in spans}
    whole = None
    for span in sorted(spans, key=times):
        if span.parent is None:
            assert whole is None, "an answer has one span without a parent"
            whole = span
        else:
            children[span.parent.span_id].append(span)
    assert whole is not None
    return whole, children


def assert_is_a_waterfall(span: ReadableSpan, children: dict[int, list[ReadableSpan]]) -> None:
    """Whatever lies inside a span lies within its time, one after another."""
    reached, end = times(span)
    assert reached <= end
    for child in children[span.context.span_id]:
        began, ended = times(child)
        assert reached <= began <= ended <= end, (span.name, child.name)
        reached = ended
        assert_is_a_waterfall(child, children)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_real_answer_is_a_waterfall_of_steps_with_their_hops(
    exporter: InMemorySpanExporter, embedded_engine: Engine, demo_codec: Codec, store: Store, stream: bool
) -> None:
    way = serve(exporter, embedded_engine, demo_codec, store)
    if stream:
        async with aclosing(way.stream(ask(TWO_HOPS))) as events:
            assert [event async for event in events]
    else:
        assert (await way.answer(ask(TWO_HOPS))).text == "Lima"
    whole, children = read(exporter)
    assert_is_a_waterfall(whole, children)
    inside = children[whole.context.span_id]
    assert [span.name for span in inside] == ["step", "step", "engine"]
    for number, step in enumerate(inside[:2]):
        assert (step.attributes or {})["metabolism.step"] == number
        engine, lookup = children[step.context.span_id]
        assert (engine.name, lookup.name) == ("engine", "lookup")
        assert (lookup.attributes or {})["metabolism.outcome"] == "found"
        sampled_ns = times(engine)[1] - times(engine)[0]
        assert sampled_ns > 0.5 * (times(step)[1] - times(step)[0]), "the engine's work fills most of its step"
    turns = [span.attributes or {} for span in exporter.get_finished_spans() if span.name == "engine"]
    contexts = [turn["gen_ai.usage.input_tokens"] for turn in turns]
    assert contexts == sorted(contexts)
    assert len(set(contexts)) == 3
    sampled = sum(int(str(turn["gen_ai.usage.output_tokens"])) for turn in turns)
    assert sampled == (whole.attributes or {})["gen_ai.usage.output_tokens"]
    assert (whole.attributes or {})["metabolism.request_id"] == "find-me"
    told = str([dict(span.attributes or {}) for span in exporter.get_finished_spans()])
    assert "Lima" not in told
    assert "Peru" not in told


async def test_a_step_that_was_taken_back_lasts_from_its_first_begin(
    exporter: InMemorySpanExporter, demo_codec: Codec, store: Store
) -> None:
    engine = ScriptedEngine(
        demo_codec,
        f"<think>\nLet me see.\nThe capital of Peru is Cusco.\n</think>\nCusco{END}",
        f"\n</think>\nLima{END}",
        pause_s=0.002,
    )
    way = serve(exporter, engine, demo_codec, store, [ClaimDetector()])
    assert (await way.answer(ask("Which city governs Peru?"))).text == "Lima"
    whole, children = read(exporter)
    first, second = (span for span in children[whole.context.span_id] if span.name == "step")
    assert (second.attributes or {})["metabolism.detector"] == "claim"
    assert times(second)[0] == times(first)[1]
    assert times(second)[1] - times(second)[0] > 5 * 2_000_000, "the words that were taken back took their time"
    assert [span.name for span in children[second.context.span_id]] == ["lookup"]
    turns = [span for span in children[whole.context.span_id] if span.name == "engine"]
    assert len(turns) == 2, "a turn that wrote two steps lies inside neither"


async def test_a_failed_answer_has_its_spans_to_the_end(
    exporter: InMemorySpanExporter, demo_codec: Codec, store: Store
) -> None:
    slow = f"<think>\nI need the capital of Peru.{' It is big.' * 200}"
    way = serve(exporter, ScriptedEngine(demo_codec, slow, pause_s=0.01), demo_codec, store)
    answer = await way.answer(ask("What is the capital of Peru?", limits=Limits(timeout_s=0.3)))
    assert answer.finish.value == "deadline"
    whole, children = read(exporter)
    assert_is_a_waterfall(whole, children)
    (step,) = children[whole.context.span_id]
    assert times(step) == times(whole)
    assert [span.name for span in children[step.context.span_id]] == ["engine"]


@pytest.fixture
def collector() -> Iterator[tuple[str, list[ExportTraceServiceRequest]]]:
    """A collector of OpenTelemetry's protocol on this machine: its address, and what it was sent."""
    got: list[ExportTraceServiceRequest] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/traces"
            body = self.rfile.read(int(self.headers["Content-Length"]))
            got.append(ExportTraceServiceRequest.FromString(body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Collector) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", got
        server.shutdown()
        thread.join()


def test_a_server_sends_its_spans_where_the_environment_says(
    tmp_path: Path,
    demo_codec: Codec,
    collector: tuple[str, list[ExportTraceServiceRequest]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url, got = collector
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
    with serving(tmp_path, demo_codec, otel=True) as running, running.client() as client:
        client.post("/v1/reason", json={"question": "Kenya | capital"}, headers={"X-Request-Id": "a-1"})
        wait_until(lambda: bool(got), within_s=10)
    [sent] = got[0].resource_spans
    assert {it.key: it.value.string_value for it in sent.resource.attributes}["service.name"] == "metabolism"
    spans = [span for scope in sent.scope_spans for span in scope.spans]
    assert sorted(span.name for span in spans) == ["answer", "engine", "engine", "lookup", "step"]
    ids = {it.value.string_value for span in spans for it in span.attributes if it.key == "metabolism.request_id"}
    assert ids == {"a-1"}
