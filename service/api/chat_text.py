"""From answers and events to OpenAI's objects: which text is content, which is reasoning, what is cited where.

Pure but for reading the events. The reasoning is the thought as a person reads it: a line a step, each call with its
reply in brackets; the same text whether it comes at once or streamed.
"""

import json
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, assert_never
from urllib.parse import urlencode

from service.api.chat_schema import (
    Annotation,
    AnswerMessage,
    ChatReply,
    ChatUsage,
    Choice,
    FinishReason,
    PromptTokens,
    UrlCitation,
)
from service.api.reason import require_answer
from service.api.refusal import Refusal
from service.api.schema import show_facts
from service.event import AnswerText, Event, Finished, StepCalled, StepReplied, StepStarted, StepText, StepWithdrawn
from service.trace import Answer, Finish, TraceCall, TraceStep, UsedFact

LOOKUP_COMMENT = b": lookup\n\n"
DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True, slots=True)
class ChatHead:
    """What all parts of one completion have in common."""

    id: str
    created: int
    facts_url: str
    stops: tuple[str, ...] = ()


def complete(head: ChatHead, answer: Answer) -> ChatReply:
    """Make the completion of a finished answer."""
    content, _ = cut_at_stop(answer.text, head.stops)
    reasoning = "\n".join(map(_show_step, answer.steps))
    facts = show_facts(answer.facts)
    message = AnswerMessage(
        content=content,
        reasoning=reasoning,
        reasoning_content=reasoning,
        annotations=annotate(content, answer.facts, head.facts_url),
        x_facts=facts,
    )
    return ChatReply(
        id=head.id,
        created=head.created,
        model=answer.core,
        choices=[Choice(message=message, finish_reason=finish_reason(answer.finish))],
        usage=show_usage(answer),
        system_fingerprint=f"{answer.core}-{answer.generation}",
        x_facts=facts,
        x_grounded=answer.grounded,
        x_generation=answer.generation,
        x_finish=answer.finish.value,
    )


def finish_reason(finish: Finish) -> FinishReason:
    """Say in OpenAI's words why an answer ended: by itself, or by a limit."""
    return "stop" if finish is Finish.STOP else "length"


def cut_at_stop(text: str, stops: Sequence[str]) -> tuple[str, bool]:
    """Cut `text` before the first of `stops`; say whether there was one."""
    places = [place for stop in stops if (place := text.find(stop)) >= 0]
    return (text[: min(places)], True) if places else (text, False)


def show_usage(answer: Answer) -> ChatUsage:
    """Count an answer's tokens as OpenAI does: what the memory injected is neither prompt nor completion."""
    usage = answer.usage
    return ChatUsage(
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        total_tokens=usage.prompt_tokens + usage.completion_tokens,
        prompt_tokens_details=PromptTokens(cached_tokens=usage.prompt_cached_tokens),
        x_injected_tokens=usage.injected_tokens,
        x_lookups=usage.lookups,
        x_calcs=usage.calcs,
    )


def annotate(content: str, facts: Sequence[UsedFact], facts_url: str) -> list[Annotation]:
    """Cite each fact: where its value stands in the text, else under the whole text, which it led to."""
    annotations = []
    for fact in facts:
        place = content.find(fact.value) if fact.value else -1
        start, end = (place, place + len(fact.value)) if place >= 0 else (0, len(content))
        citation = UrlCitation(
            start_index=start,
            end_index=end,
            title=f"{fact.subject} | {fact.relation} | {fact.value} ({fact.module}, generation {fact.generation})",
            url=_fact_url(fact, facts_url),
        )
        annotations.append(Annotation(url_citation=citation))
    return annotations


def _fact_url(fact: UsedFact, facts_url: str) -> str:
    if fact.source is not None and fact.source.startswith(("http://", "https://")):
        return fact.source
    where = {"subject": fact.subject, "relation": fact.relation, "module": fact.module, "generation": fact.generation}
    return f"{facts_url}?{urlencode(where)}"


def _show_step(step: TraceStep) -> str:
    return " ".join(part for part in (step.text, *map(_show_call, step.calls)) if part)


def _show_call(call: TraceCall) -> str:
    return f"[{call.body} → {call.reply}]"


# --- Streaming. ----------------------------------------------------------------------------------------------------


async def stream_chunks(
    head: ChatHead, core: str, events: AsyncGenerator[Event, None], *, with_usage: bool
) -> AsyncGenerator[bytes, None]:
    """Turn events into OpenAI's chunks in wire format; an answer that fails underway ends with an error event."""
    writer = _ChunkWriter(head, core, with_usage=with_usage)
    yield writer.chunk({"role": "assistant", "content": ""})
    async with aclosing(events):
        async for event in events:
            for part in writer.write(event):
                yield part
    yield DONE


class _ChunkWriter:
    """Writes the chunks of one completion."""

    def __init__(self, head: ChatHead, core: str, *, with_usage: bool) -> None:
        self._head = head
        self._core = core
        self._with_usage = with_usage
        self._answer = _StopFilter(head.stops)
        self._line_open = False

    def write(self, event: Event) -> Iterator[bytes]:
        """Write what `event` adds."""
        match event:
            case StepStarted():
                if self._line_open:
                    yield self._think("\n")
                self._line_open = True
            case StepText(text=text):
                yield self._think(text)
            case StepCalled():
                yield LOOKUP_COMMENT
            case StepReplied(call=call):
                yield self._think(f" {_show_call(call)}")
            case StepWithdrawn(reason=reason):
                yield self._think(f" [taken back: {reason}]\n")
            case AnswerText(text=text):
                if shown := self._answer.feed(text):
                    yield self.chunk({"content": shown})
            case Finished(answer=answer):
                yield from self._finish(answer)
            case _:
                assert_never(event)

    def chunk(self, delta: dict[str, Any], finish: FinishReason | None = None, **extra: Any) -> bytes:
        """Write a chunk."""
        body = {
            "id": self._head.id,
            "object": "chat.completion.chunk",
            "created": self._head.created,
            "model": self._core,
            "choices": [{"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}],
            **extra,
        }
        if self._with_usage:
            body["usage"] = extra.get("usage")
        return _event(body)

    def _think(self, text: str) -> bytes:
        return self.chunk({"reasoning": text, "reasoning_content": text})

    def _finish(self, answer: Answer) -> Iterator[bytes]:
        try:
            require_answer(answer)
        except Refusal as error:
            yield _event(error.body)
            return
        rest = self._answer.finish(answer.text)
        if rest:
            yield self.chunk({"content": rest})
        content, _ = cut_at_stop(answer.text, self._head.stops)
        facts = [fact.model_dump() for fact in show_facts(answer.facts)]
        annotations = [note.model_dump() for note in annotate(content, answer.facts, self._head.facts_url)]
        yield self.chunk(
            {"annotations": annotations, "x_facts": facts},
            finish_reason(answer.finish),
            x_facts=facts,
            x_grounded=answer.grounded,
            x_generation=answer.generation,
            x_finish=answer.finish.value,
        )
        if self._with_usage:
            body = {
                "id": self._head.id,
                "object": "chat.completion.chunk",
                "created": self._head.created,
                "model": answer.core,
                "choices": [],
                "usage": show_usage(answer).model_dump(),
            }
            yield _event(body)


class _StopFilter:
    """Holds back what could be the beginning of a stop text, and everything after one."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = stops
        self._longest = max(map(len, stops), default=1) - 1
        self._text = ""
        self._given = 0

    def feed(self, text: str) -> str:
        """Take more text; give what is certain to be shown."""
        self._text += text
        shown, stopped = cut_at_stop(self._text, self._stops)
        end = len(shown) if stopped else max(self._given, len(shown) - self._longest)
        new, self._given = shown[self._given : end], max(self._given, end)
        return new

    def finish(self, whole: str) -> str:
        """Give what is still to be shown of the finished answer, or nothing where it was replaced after the fact."""
        shown, _ = cut_at_stop(whole, self._stops)
        if not self._text.strip():
            return shown
        already = self._text[: self._given].lstrip()
        return shown[len(already) :] if shown.startswith(already) else ""


def _event(body: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace") + b"\n\n"
