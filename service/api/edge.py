"""What every request passes on its way in and out, whatever its route: id, size of the body, clock, count, log.

Plain ASGI, outermost: what nobody else caught becomes a 500 in the one shape here.
"""

import re
import secrets
import time
from collections.abc import Mapping

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.refusal import Refusal
from service.metric import Metrics

_log = structlog.get_logger("metabolism.http")
_REQUEST_ID = re.compile(rb"[!-~]{1,128}")
_DRAINED_BYTES = 16 * 1024 * 1024
_UNWATCHED = ("/health/live", "/health/ready", "/metrics")


class Edge:
    """The outermost layer of the service."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics, limits: Mapping[str, int], default_limit: int) -> None:
        self._app = app
        self._metrics = metrics
        self._limits = limits
        self._default_limit = default_limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        given = headers.get(b"x-request-id", b"")
        request_id = given.decode("ascii") if _REQUEST_ID.fullmatch(given) else secrets.token_hex(16)
        scope.setdefault("state", {})["request_id"] = request_id
        started = time.perf_counter()
        status = 0

        async def send_marked(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", request_id.encode())]
            await send(message)

        limit = self._limits.get(scope["path"], self._default_limit)
        try:
            if int(headers.get(b"content-length", b"0") or 0) > limit:
                await _drain(receive)
                await _too_large(limit).response()(scope, receive, send_marked)
            else:
                await self._app(scope, _counted(receive, limit), send_marked)
        except Exception:
            _log.exception("failed", request_id=request_id, path=scope["path"])
            if status == 0:
                failure = Refusal(500, "the service failed; its log says why, under this request's id", code="internal")
                await failure.response()(scope, receive, send_marked)
            else:
                raise
        finally:
            self._note(scope, status, time.perf_counter() - started, request_id)

    def _note(self, scope: Scope, status: int, elapsed_s: float, request_id: str) -> None:
        route = getattr(scope.get("route"), "path", "unmatched")
        self._metrics.count_request(route, scope["method"], status, elapsed_s)
        level = _log.debug if route in _UNWATCHED else _log.info
        key = scope["state"].get("key")
        level(
            "request",
            request_id=request_id,
            method=scope["method"],
            route=route,
            status=status,
            elapsed_s=round(elapsed_s, 4),
            key=None if key is None else key.name,
        )


def _too_large(limit: int) -> Refusal:
    return Refusal(413, f"the body is larger than {limit:,} bytes; send less, or in parts")


def _counted(receive: Receive, limit: int) -> Receive:
    seen = 0

    async def counted() -> Message:
        nonlocal seen
        message = await receive()
        if message["type"] == "http.request":
            seen += len(message.get("body", b""))
            if seen > limit:
                raise _too_large(limit)
        return message

    return counted


async def _drain(receive: Receive) -> None:
    """Read what the client still sends, within reason, so that it reads our answer instead of a reset."""
    seen = 0
    while seen < _DRAINED_BYTES:
        message = await receive()
        seen += len(message.get("body", b""))
        if message["type"] != "http.request" or not message.get("more_body"):
            return
