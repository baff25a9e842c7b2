"""``POST /v1/chat/completions``: OpenAI's route, streaming or not. ``chat_text.py`` says what text goes where."""

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing

from fastapi import Request, Response

from service.api.chat_schema import ChatReply, ChatRequest, text_of
from service.api.chat_text import ChatHead, complete, stream_chunks
from service.api.connection import EventStream, first_of, while_connected
from service.api.guard import guarded_router
from service.api.reason import require_answer
from service.api.refusal import Refusal, documented
from service.api.resource import FromApp, Resources
from service.api.schema import LimitsChoice, limits_of
from service.codec import Message
from service.event import Event, Finished
from service.question import Question
from service.security import Scope

router = guarded_router(Scope.INFER, tags=["answers"])
ALIAS = "metabolism"
"""The name by which a client may always ask for whichever core is served."""

_EVENT = {
    "type": "object",
    "description": "A server-sent event. Its data is one of OpenAI's chunks as JSON, or [DONE].",
    "properties": {"data": {"type": "string"}},
    "required": ["data"],
}


@router.post(
    "/v1/chat/completions",
    response_model=ChatReply,
    responses={
        **documented(404, 410, 502),
        200: {"content": {"text/event-stream": {"schema": _EVENT}}, "description": "The answer, or a stream of it"},
    },
)
async def complete_chat(asked: ChatRequest, request: Request, resources: FromApp) -> Response:
    """Answer a conversation as OpenAI's API does, so that any client of theirs works.

    `reasoning` and `reasoning_content` hold the thought; `annotations` and `x_facts` the facts it used, `x_generation`
    the generation it saw. With `stream: true` the same comes as server-sent events; comments mark the lookups.
    """
    _check_model(asked, resources)
    question = _question(asked, request, resources)
    head = ChatHead(
        id=f"chatcmpl-{request.state.request_id}",
        created=int(time.time()),
        facts_url=str(request.url_for("list_facts")),
        stops=asked.stops,
    )
    if not asked.stream:
        answer = require_answer(await while_connected(request, resources.serving.answer(question)))
        return Response(complete(head, answer).model_dump_json(), media_type="application/json")
    events = resources.serving.stream(question)
    first = await while_connected(request, first_of(events))
    if isinstance(first, Finished):
        try:
            require_answer(first.answer)
        except Refusal:
            await events.aclose()
            raise
    with_usage = asked.stream_options is not None and asked.stream_options.include_usage
    core = resources.serving.slot.current.name
    chunks = stream_chunks(head, core, _from_first(first, events), with_usage=with_usage)
    return EventStream(chunks, keep_alive_s=resources.settings.keep_alive_s)


def _check_model(asked: ChatRequest, resources: Resources) -> None:
    slot = resources.serving.slot
    if asked.model in (None, ALIAS) or slot.knows(asked.model or ""):
        return
    message = f"there is no model {asked.model[:100]!r} here; there are: {slot.current.name}, {ALIAS}"
    raise Refusal(404, message, code="model_not_found", param="model")


def _question(asked: ChatRequest, request: Request, resources: Resources) -> Question:
    messages = tuple(
        Message("system" if message.role == "developer" else message.role, text_of(message))
        for message in asked.messages
    )
    limits = asked.limits or LimitsChoice()
    if asked.most_tokens is not None:
        limits = limits.model_copy(update={"tokens": min(asked.most_tokens, limits.tokens or asked.most_tokens)})
    return Question(
        messages=messages,
        knowledge=asked.knowledge.value,
        limits=limits_of(resources.settings, limits),
        temperature=asked.temperature or 0.0,
        top_p=asked.top_p or 1.0,
        seed=asked.seed,
        request_id=request.state.request_id,
    )


async def _from_first(first: Event, rest: AsyncGenerator[Event, None]) -> AsyncGenerator[Event, None]:
    async with aclosing(rest):
        yield first
        async for event in rest:
            yield event
