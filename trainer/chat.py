"""How a dialogue becomes text in a base's own chat format, with marks of what carries loss.

The frame is learned once from the tokenizer's chat template (`base_model.py`), so that the streams need neither
transformers nor jinja. The marks come from the protocol's spans: sampled text is trained, injected text is not.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from knowledge_store.protocol import Origin, escape_quoted, render_turn
from trainer.world.document import Document


@dataclass(frozen=True, slots=True)
class ChatFrame:
    """The text around questions and turns, as the base's chat template writes it."""

    start: str
    """Before the first question, where no system prompt is given."""
    start_tools: str
    """The same, with the system prompt that switches the tools on."""
    reply: str
    """Between a question and its turn."""
    end: str
    """Ends a turn; the model samples it."""
    again: str
    """Between the end of a turn and the next question."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of text and whether its tokens carry loss."""

    text: str
    trained: bool


def render(document: Document, frame: ChatFrame) -> tuple[Segment, ...]:
    """Write a document as segments, each to be encoded by itself, as the service appends ids by span."""
    if document.prose:
        return (Segment(escape_quoted(document.prose), True),)
    return tuple(_render(document, frame))


def _render(document: Document, frame: ChatFrame) -> Iterator[Segment]:
    opening = frame.start_tools if document.tools else frame.start
    for exchange in document.exchanges:
        yield Segment(opening, False)
        yield Segment(escape_quoted(exchange.question), False)
        yield Segment(frame.reply, False)
        for span in render_turn(exchange.turn):
            yield Segment(span.text, span.origin is Origin.SAMPLED)
        yield Segment(frame.end, True)
        opening = frame.again


def render_prompt(question: str, frame: ChatFrame, *, tools: bool = False) -> tuple[Segment, ...]:
    """Write a question up to where the model's turn begins."""
    opening = frame.start_tools if tools else frame.start
    return Segment(opening, False), Segment(escape_quoted(question), False), Segment(frame.reply, False)
