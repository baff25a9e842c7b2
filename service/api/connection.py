"""The client's end of the line: noticing that it went away, and streaming events to it while it is there.

A client that goes away cancels what was being made for it, and with it its slot in the engine, at once and not at the
next token.
"""

import asyncio
from collections.abc import AsyncGenerator, Coroutine, Mapping
from contextlib import suppress
from typing import Any, TypeVar

from fastapi import Request
from fastapi.sse import KEEPALIVE_COMMENT
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from service.api.refusal import Refusal

T = TypeVar("T")


async def while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Await `work` for as long as the client waits for it.

    Raises:
        Refusal: the client went away; nobody will read it.
    """
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_gone(request.receive))
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise Refusal(499, "the client went away", code="client_closed_request")
        return task.result()
    finally:
        await _cancel(task, gone)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _cancel(*tasks: "asyncio.Future[Any]") -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


class EventStream(Response):
    """A response of server-sent events, each already in wire format; a comment breaks each long silence."""

    media_type = "text/event-stream"

    def __init__(
        self, events: AsyncGenerator[bytes, None], *, keep_alive_s: float, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no", **(headers or {})})
        del self.headers["content-length"]
        self._events = events
        self._keep_alive_s = keep_alive_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - the ASGI signature
        """Send until the events end or the client goes away."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        gone = asyncio.ensure_future(_gone(receive))
        following: asyncio.Future[bytes | None] | None = None
        try:
            while not gone.done():
                following = following or asyncio.ensure_future(_next(self._events))
                await asyncio.wait((following, gone), timeout=self._keep_alive_s, return_when=asyncio.FIRST_COMPLETED)
                part: bytes | None = KEEPALIVE_COMMENT
                if following.done():
                    part, following = following.result(), None
                if part is None:
                    break
                if not gone.done():
                    await send({"type": "http.response.body", "body": part, "more_body": True})
            if not gone.done():
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            await _cancel(gone, *([following] if following else []))
            await self._events.aclose()


def _next(events: AsyncGenerator[bytes, None]) -> Coroutine[Any, Any, bytes | None]:
    async def following() -> bytes | None:
        return await anext(events, None)

    return following()


async def first_of(events: AsyncGenerator[T, None]) -> T:
    """Give the first event; close the generator where it fails or its caller gives up."""
    try:
        return await anext(events)
    except BaseException:
        with suppress(RuntimeError):
            await events.aclose()
        raise
