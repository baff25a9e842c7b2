"""What is counted, for Prometheus: a registry of our own, so that two services in one process do not meet.

Only this file imports prometheus_client. Labels have few values each: routes and outcomes, never subjects or users.
"""

from collections.abc import Callable

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from knowledge_store.protocol import CallKind
from service.trace import Answer

CONTENT_TYPE = CONTENT_TYPE_LATEST
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_MICRO_SECONDS = (0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05)


class Metrics:
    """The counters of one service."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"metabolism_{name}", text, labels, registry=self.registry)

        def histogram(name: str, text: str, *labels: str, buckets: tuple[float, ...] = _SECONDS) -> Histogram:
            return Histogram(f"metabolism_{name}", text, labels, registry=self.registry, buckets=buckets)

        self._requests = counter("requests", "HTTP requests by route, method and status.", "route", "method", "status")
        self._request_s = histogram("request_seconds", "Time of an HTTP request.", "route")
        self._answers = counter("answers", "Answers by how they ended.", "finish", "grounded")
        self._steps = counter("steps", "Steps of thought by what asked for their facts.", "detector")
        self._lookups = counter("lookups", "Lookups by outcome, match and detector.", "outcome", "match", "detector")
        self._calcs = counter("calcs", "Calculations by outcome.", "outcome")
        self._tokens = counter("tokens", "Tokens by kind.", "kind")
        self._answer_s = histogram("answer_seconds", "Time of an answer.")
        self._engine_s = histogram("engine_seconds", "The part of an answer's time that was the engine's.")
        self._own_s = histogram("own_seconds", "The part that was neither the engine's nor the store's.")
        self._lookup_s = histogram("lookup_seconds", "Time of one call.", buckets=_MICRO_SECONDS)
        self._updates = counter("updates", "Changes of the store by what came of them.", "outcome")
        self._facts = counter("facts_changed", "Facts changed by what was done to them.", "change")
        self._core = Gauge("metabolism_core_info", "The served core.", ("core", "engine"), registry=self.registry)

    def watch(self, read: Callable[[], dict[str, float]]) -> None:
        """Ask `read` for the gauges, name to value, whenever somebody looks."""
        self.registry.register(_Gauges(read))

    def show_core(self, name: str, engine: str) -> None:
        """Name the served core."""
        self._core.clear()
        self._core.labels(name, engine).set(1)

    def count_request(self, route: str, method: str, status: int, elapsed_s: float) -> None:
        """Count an HTTP request; `route` is the pattern, not the path."""
        self._requests.labels(route, method, str(status)).inc()
        self._request_s.labels(route).observe(elapsed_s)

    def count_answer(self, answer: Answer) -> None:
        """Count an answer with its steps, calls, tokens and times."""
        grounded = "unknown" if answer.grounded is None else str(answer.grounded).lower()
        self._answers.labels(answer.finish.value, grounded).inc()
        for step in answer.steps:
            detector = step.detector.value if step.detector else "none"
            self._steps.labels(detector).inc()
            for call in step.calls:
                outcome = call.outcome.value if call.outcome else "none"
                if call.kind is CallKind.LOOKUP:
                    self._lookups.labels(outcome, call.match or "none", detector).inc()
                else:
                    self._calcs.labels(outcome).inc()
                self._lookup_s.observe(call.elapsed_s)
        usage, timings = answer.usage, answer.timings
        for kind, count in (
            ("prompt", usage.prompt_tokens),
            ("completion", usage.completion_tokens),
            ("injected", usage.injected_tokens),
            ("cached", usage.cached_tokens),
        ):
            self._tokens.labels(kind).inc(count)
        self._answer_s.observe(timings.total_s)
        self._engine_s.observe(timings.engine_s)
        self._own_s.observe(max(0.0, timings.total_s - timings.engine_s - timings.lookup_s))

    def count_update(self, outcome: str, *, added: int = 0, changed: int = 0, deleted: int = 0) -> None:
        """Count a change of the store."""
        self._updates.labels(outcome).inc()
        for change, count in (("added", added), ("changed", changed), ("deleted", deleted)):
            self._facts.labels(change).inc(count)

    def render(self) -> bytes:
        """Write everything in Prometheus' text format."""
        return generate_latest(self.registry)


class _Gauges(Collector):
    def __init__(self, read: Callable[[], dict[str, float]]) -> None:
        self._read = read

    def collect(self) -> list[Metric]:
        return [
            GaugeMetricFamily(f"metabolism_{name}", f"The service's {name.replace('_', ' ')}.", value=value)
            for name, value in self._read().items()
        ]

    def describe(self) -> list[Metric]:
        return []
