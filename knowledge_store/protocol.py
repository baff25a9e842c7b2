"""How a logic core asks its memory and its calculator, and how it is answered. Version 1.

The one place that knows the tags, the escaping and the grammar of a turn. The service parses what a core samples,
the trainer renders what a core shall learn, and both read the same spans, so a trace and a loss mask cannot disagree.
Not here: token ids (the service's codec), the lookup itself (``lookup.py``), arithmetic (the service's ALU).

A turn::

    <think>
    I need the ceo of Zed Labs. <lookup>Zed Labs | ceo</lookup><fact>Maria Okafor</fact>
    </think>
    Maria Okafor
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import assert_never

from knowledge_store.errors import ProtocolError

PROTOCOL_VERSION = 1
NOT_FOUND = "NOT FOUND"
CALC_ERROR = "ERROR"
SYSTEM_PROMPT = "Use lookup for facts and calc for arithmetic."
"""Switches the tools on in the demo base; a metabolized core needs none."""


class Tag(StrEnum):
    """The ten marks of a turn."""

    THINK = "<think>"
    END_THINK = "</think>"
    LOOKUP = "<lookup>"
    END_LOOKUP = "</lookup>"
    FACT = "<fact>"
    END_FACT = "</fact>"
    CALC = "<calc>"
    END_CALC = "</calc>"
    RESULT = "<result>"
    END_RESULT = "</result>"


class Origin(StrEnum):
    """Who wrote a span: the model, by sampling, or the memory and the ALU, by injection."""

    SAMPLED = "sampled"
    INJECTED = "injected"


class CallKind(StrEnum):
    """What a call asks: the memory or the ALU."""

    LOOKUP = "lookup"
    CALC = "calc"

    @property
    def tags(self) -> tuple[Tag, Tag]:
        """The tags around the call's body."""
        return (Tag.LOOKUP, Tag.END_LOOKUP) if self is CallKind.LOOKUP else (Tag.CALC, Tag.END_CALC)

    @property
    def reply_tags(self) -> tuple[Tag, Tag]:
        """The tags around the reply to it."""
        return (Tag.FACT, Tag.END_FACT) if self is CallKind.LOOKUP else (Tag.RESULT, Tag.END_RESULT)


# --- Escaping: decimal character references, as in HTML, for just what could be taken for structure. ---------------

_STRUCTURE = r"<(?=\||/?(?:think|lookup|fact|calc|result)>)"
_QUOTED = re.compile(rf"&(?=#\d+;)|{_STRUCTURE}")
_ANSWER = re.compile(rf"{_QUOTED.pattern}|\A\s|\s\Z")
_FIELD = re.compile(rf"&(?=#\d+;)|{_STRUCTURE}|[|\n\r\v\f\x1c-\x1e\x85\u2028\u2029]|\A\s|\s\Z")
_REFERENCE = re.compile(r"&#(\d{1,7});")
_AFTER_SEMICOLON = re.compile(r"(?<=;) +")
"""All spaces of a run: a reference ends in a semicolon itself."""


def _refer(match: re.Match[str]) -> str:
    return f"&#{ord(match[0])};"


def escape(text: str) -> str:
    """Make `text` a field: one line that can neither open a tag nor end a field nor stand for a missing fact.

    `unescape` gives exactly `text` back. An ordinary name or number is its own escape.
    """
    escaped = _AFTER_SEMICOLON.sub(lambda match: "&#32;" * len(match[0]), _FIELD.sub(_refer, text))
    return escaped.replace(" ", "&#32;", 1) if escaped == NOT_FOUND else escaped


def escape_quoted(text: str) -> str:
    """Make `text` safe to stand in a prompt or an answer: tags are defused, lines and pipes stay as they are."""
    return _QUOTED.sub(_refer, text)


def unescape(text: str) -> str:
    """Undo `escape` and `escape_quoted`; a reference to no character, or to half of one, stays as written."""
    return _REFERENCE.sub(_dereference, text)


def _dereference(match: re.Match[str]) -> str:
    code = int(match[1])
    return match[0] if code > 0x10FFFF or 0xD800 <= code <= 0xDFFF else chr(code)


# --- Queries: what stands between <lookup> and </lookup>. ----------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ValueQuery:
    """``subject | relation``: which value?"""

    subject: str
    relation: str


@dataclass(frozen=True, slots=True)
class SubjectQuery:
    """``? | relation | value``: which subject has it?"""

    relation: str
    value: str


@dataclass(frozen=True, slots=True)
class RelationsQuery:
    """``subject | ?``: what is known of it?"""

    subject: str


@dataclass(frozen=True, slots=True)
class TextQuery:
    """Free text: the nearest fact."""

    text: str


Query = ValueQuery | SubjectQuery | RelationsQuery | TextQuery


def parse_query(body: str) -> Query:
    """Read the body of a lookup, escaped as the core wrote it.

    Raises:
        ProtocolError: a field is empty, or there are more than three.
    """
    fields = [field.strip() for field in body.split("|")]
    if not all(fields):
        raise ProtocolError(f"a lookup has an empty field: {body!r}; write «subject | relation»")
    match [field if field == "?" else unescape(field) for field in fields]:
        case [text] if fields != ["?"]:
            return TextQuery(text)
        case [subject, relation] if fields[0] != "?" != fields[1]:
            return ValueQuery(subject, relation)
        case [subject, _] if fields[0] != "?":
            return RelationsQuery(subject)
        case [_, relation, value] if fields[0] == "?" and "?" not in fields[1:]:
            return SubjectQuery(relation, value)
        case _:
            forms = "«subject | relation», «? | relation | value», «subject | ?» or free text"
            raise ProtocolError(f"not a lookup: {body!r}; write {forms}")


def render_query(query: Query) -> str:
    """Write the body of a lookup; `parse_query` gives exactly `query` back."""
    match query:
        case ValueQuery(subject, relation):
            return f"{_field(subject)} | {_field(relation)}"
        case SubjectQuery(relation, value):
            return f"? | {_field(relation)} | {_field(value)}"
        case RelationsQuery(subject):
            return f"{_field(subject)} | ?"
        case TextQuery(text):
            return _field(text)
        case _:
            assert_never(query)


def _field(text: str) -> str:
    return "&#63;" if text == "?" else escape(text)


def render_values(values: Sequence[str]) -> str:
    """Write the body of a ``<fact>``: the values joined by ``; ``, or NOT FOUND where there is none."""
    return "; ".join(map(escape, values)) if values else NOT_FOUND


def parse_values(body: str) -> tuple[str, ...]:
    """Read the body of a ``<fact>``; `render_values` gives it back."""
    return () if body == NOT_FOUND else tuple(map(unescape, body.split("; ")))


# --- A turn: steps, calls, answer. ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Call:
    """A question of the core to its memory or ALU; `body` and `reply` are escaped, as they stand in the turn."""

    kind: CallKind
    body: str
    reply: str | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """A line of the thought: prose and calls in their order. Prose is unescaped."""

    parts: tuple[str | Call, ...]

    @property
    def text(self) -> str:
        """The prose alone."""
        return " ".join(part for part in self.parts if isinstance(part, str))

    @property
    def calls(self) -> tuple[Call, ...]:
        """The calls alone."""
        return tuple(part for part in self.parts if isinstance(part, Call))


@dataclass(frozen=True, slots=True)
class Turn:
    """A finished turn. `answer` is unescaped; None where the core never came to one."""

    steps: tuple[Step, ...]
    answer: str | None


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of a turn that one party wrote. Injected spans carry no loss in training."""

    text: str
    origin: Origin


Piece = Tag | str
"""A turn seen by its marks. A codec whose tokenizer has the tags makes them of ids, others by `split_tags`."""

_TAG = re.compile("(" + "|".join(re.escape(tag) for tag in Tag) + ")")


def split_tags(text: str) -> list[Piece]:
    """Cut `text` at its tags."""
    return [Tag(part) if _TAG.fullmatch(part) else part for part in _TAG.split(text) if part]


def render_reply(call: Call) -> str:
    """Write the reply to a call with its tags: what the memory or the ALU injects after the call."""
    assert call.reply is not None, "a call is answered before its reply is written"
    opening, closing = call.kind.reply_tags
    return f"{opening}{call.reply}{closing}"


def render_turn(turn: Turn) -> tuple[Span, ...]:
    """Write a whole turn as the core would sample it and the memory would inject into it, neighbours merged."""
    spans: list[Span] = []
    if turn.steps:
        spans.append(Span(f"{Tag.THINK}\n", Origin.SAMPLED))
        for step in turn.steps:
            spans += _render_step(step)
    if turn.answer is not None:
        closing = f"{Tag.END_THINK}\n" if turn.steps else ""
        spans.append(Span(closing + _ANSWER.sub(_refer, turn.answer), Origin.SAMPLED))
    return _merge(spans)


def _render_step(step: Step) -> Iterable[Span]:
    for place, part in enumerate(step.parts):
        space = " " if place else ""
        if isinstance(part, str):
            yield Span(space + escape(part), Origin.SAMPLED)
            continue
        opening, closing = part.kind.tags
        yield Span(f"{space}{opening}{part.body}{closing}", Origin.SAMPLED)
        if part.reply is not None:
            yield Span(render_reply(part), Origin.INJECTED)
    yield Span("\n", Origin.SAMPLED)


def _merge(spans: Iterable[Span]) -> tuple[Span, ...]:
    merged: list[Span] = []
    for span in spans:
        if merged and merged[-1].origin is span.origin:
            merged[-1] = Span(merged[-1].text + span.text, span.origin)
        else:
            merged.append(span)
    return tuple(merged)


def parse_turn(spans: Iterable[Span]) -> Turn:
    """Read a whole turn.

    Raises:
        ProtocolError: as `Parser.feed`.
    """
    parser = Parser()
    for span in spans:
        parser.feed(split_tags(span.text), span.origin)
    return parser.finish()


class Parser:
    """Follows a turn while it grows; `finish` makes it a `Turn`.

    Feed it what the core sampled and what was injected, in order. After each feed, `pending` is the call that waits
    for its reply and `steps` are the lines that are complete.
    """

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.pending: Call | None = None
        self.thinking = False
        self._closed = False  # </think> was seen
        self._open: Tag | None = None  # the tag whose body is being read
        self._body = ""
        self._prose = ""
        self._parts: list[str | Call] = []

    def feed(self, pieces: Iterable[Piece], origin: Origin) -> None:
        """Go on with `pieces`.

        Raises:
            ProtocolError: a tag stands where it may not, the core wrote a reply itself, or it wrote on where a reply
                was due. What was read before stays readable in `steps`.
        """
        for piece in pieces:
            if isinstance(piece, Tag):
                self._read_tag(piece, origin)
            elif self._open is not None:
                self._body += piece
            elif self.pending is not None and piece.strip():
                raise ProtocolError(f"text stands where the reply to a {self.pending.kind} is due: {piece[:80]!r}")
            else:
                self._read_prose(piece)

    def finish(self) -> Turn:
        """End the turn. A call left open or unanswered ends as a step without a reply."""
        if self._open in (Tag.LOOKUP, Tag.CALC):
            self._parts += [*self._take_prose(), self._open + self._body]
            self._open = None
        if self.pending is not None:
            self._answer_pending(None)
        answer = None
        if not self.thinking:
            answer = unescape(self._prose.strip())
            self._prose = ""
            self._end_step()
        else:
            self._end_step()
        return Turn(tuple(self.steps), answer)

    def _read_tag(self, tag: Tag, origin: Origin) -> None:
        match tag:
            case Tag.THINK if not (self.thinking or self._closed or self._open or self._parts or self._prose.strip()):
                self.thinking, self._prose = True, ""
            case Tag.END_THINK if self.thinking and self._open is None and self.pending is None:
                self._end_step()
                self.thinking, self._closed = False, True
            case Tag.LOOKUP | Tag.CALC if self._open is None and self.pending is None:
                self._open, self._body = tag, ""
            case Tag.END_LOOKUP | Tag.END_CALC if self._open is not None and tag == f"</{self._open[1:]}":
                kind = CallKind.LOOKUP if tag is Tag.END_LOOKUP else CallKind.CALC
                self.pending, self._open = Call(kind, self._body.strip()), None
            case Tag.FACT | Tag.RESULT if origin is Origin.SAMPLED:
                raise ProtocolError(f"the core wrote {tag} itself; only the memory and the ALU reply")
            case Tag.FACT | Tag.RESULT if self.pending is not None and tag is self.pending.kind.reply_tags[0]:
                self._open, self._body = tag, ""
            case Tag.END_FACT | Tag.END_RESULT if self._open is not None and tag == f"</{self._open[1:]}":
                self._open = None
                self._answer_pending(self._body)
            case _:
                raise ProtocolError(f"{tag} may not stand here")

    def _answer_pending(self, reply: str | None) -> None:
        assert self.pending is not None, "a reply follows a call"
        self._parts += [*self._take_prose(), Call(self.pending.kind, self.pending.body, reply)]
        self.pending = None

    def _read_prose(self, text: str) -> None:
        if not self.thinking:
            self._prose += text
            return
        *lines, rest = text.split("\n")
        for line in lines:
            self._prose += line
            self._end_step()
        self._prose += rest

    def _take_prose(self) -> list[str]:
        prose, self._prose = unescape(self._prose.strip()), ""
        return [prose] if prose else []

    def _end_step(self) -> None:
        parts = [*self._parts, *self._take_prose()]
        self._parts = []
        if parts:
            self.steps.append(Step(tuple(parts)))
