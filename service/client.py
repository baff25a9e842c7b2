"""A typed client of a running service: speaks HTTP, raises this package's errors, repeats what may be repeated.

Used by `metabolism ask --url` and the facade. Any OpenAI client works too; this one gives the whole proof.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Literal, Self

import httpx
from pydantic import TypeAdapter, ValidationError

from knowledge_store.change import CommitReport, Conflict
from knowledge_store.exchange import record_of
from knowledge_store.fact import Fact
from service.errors import ClientError, ServerRefused, ServerUnreachable
from service.trace import Answer, Finish, Timings, TraceStep, Usage, UsedFact

_REPEATED = frozenset({429, 503})
_STEPS = TypeAdapter(tuple[TraceStep, ...])
_FACTS = TypeAdapter(tuple[UsedFact, ...])
_USAGE = TypeAdapter(Usage)
_TIMINGS = TypeAdapter(Timings)


class Client:
    """Asks and updates one server."""

    def __init__(
        self,
        url: str,
        *,
        key: str | None = None,
        timeout_s: float = 120.0,
        retries: int = 2,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        self._http = httpx.Client(base_url=url, headers=headers, timeout=timeout_s, transport=transport)
        self._url = url
        self._retries = retries
        self._sleep = sleep

    def reason(self, question: str, *, modules: Sequence[str] | None = None, generation: int | None = None) -> Answer:
        """Ask a question.

        Raises:
            ServerUnreachable: nobody answered.
            ServerRefused: the server refused it; status, code and parameter are attributes.
        """
        chosen: dict[str, Any] = {}
        if modules is not None:
            chosen["modules"] = list(modules)
        if generation is not None:
            chosen["generation"] = generation
        body = self._send("POST", "/v1/reason", json={"question": question, "knowledge": chosen})
        return _read_answer(body)

    def update_knowledge(
        self,
        facts: Iterable[tuple[Fact, bool]],
        *,
        module: str,
        mode: Literal["merge", "replace"] = "merge",
        if_match: str | None = None,
        dry_run: bool = False,
    ) -> CommitReport:
        """Change facts of a module; each fact comes with whether it is to be deleted. Raises as `reason`."""
        records = [{**record_of(fact), "op": "delete" if delete else "upsert"} for fact, delete in facts]
        headers = {} if if_match is None else {"If-Match": if_match}
        body = {"module": module, "mode": mode, "facts": records, "dry_run": dry_run}
        return _read_report(self._send("POST", "/update_knowledge", json=body, headers=headers))

    def modules(self) -> tuple[str, ...]:
        """Give the names of the mounted modules in order of precedence. Raises as `reason`."""
        listed = self._send("GET", "/v1/knowledge/modules")["modules"]
        return tuple(it["name"] for it in listed if it["mounted"])

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _send(self, method: str, path: str, **request: Any) -> Any:
        for attempt in range(self._retries + 1):
            try:
                response = self._http.request(method, path, **request)
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                raise ServerUnreachable(
                    f"nobody answers at {self._url} ({error}); start one with `metabolism serve`"
                ) from error
            if response.status_code not in _REPEATED or attempt == self._retries:
                break
            self._sleep(_pause_s(response, attempt))
        try:
            body = response.json()
        except ValueError as error:
            raise ClientError(f"{self._url} did not answer in JSON; is it a metabolism server?") from error
        if response.is_success:
            return body
        raise _refusal(response.status_code, body)


def _pause_s(response: httpx.Response, attempt: int) -> float:
    asked = response.headers.get("retry-after", "")
    return min(float(asked) if asked.isdigit() else 0.5 * 2**attempt, 10.0)


def _refusal(status: int, body: Any) -> ServerRefused:
    error: Mapping[str, Any] = body.get("error", {}) if isinstance(body, dict) else {}
    message = str(error.get("message", f"the server answered {status}"))
    return ServerRefused(message, status=status, code=error.get("code"), param=error.get("param"))


def _read_answer(body: Mapping[str, Any]) -> Answer:
    try:
        return Answer(
            text=body["answer"],
            grounded=body["grounded"],
            steps=_STEPS.validate_python(body["steps"]),
            facts=_FACTS.validate_python(body["facts"]),
            generation=body["generation"],
            core=body["core"],
            usage=_USAGE.validate_python(body["usage"]),
            timings=_TIMINGS.validate_python(body["timings"]),
            finish=Finish(body["finish"]),
            error=body["error"],
        )
    except (KeyError, TypeError, ValidationError) as error:
        raise ClientError(f"the server's answer is not one that this client knows: {error}") from error


def _read_report(body: Mapping[str, Any]) -> CommitReport:
    counts = {name: body[name] for name in ("generation", "added", "changed", "deleted", "unchanged")}
    conflicts = tuple(_read_conflict(it, body["module"]) for it in body["conflicts"])
    return CommitReport(body["module"], **counts, conflicts=conflicts, etag=body["etag"], dry_run=body["dry_run"])


def _read_conflict(body: Mapping[str, Any], module: str) -> Conflict:
    def fact(side: Mapping[str, Any]) -> Fact:
        return Fact(body["subject"], body["relation"], side["value"], module, side["source"])

    kept, other = body["kept"], body["other"]
    return Conflict(body["subject"], body["relation"], fact(kept), fact(other), kept["line"], other["line"])
