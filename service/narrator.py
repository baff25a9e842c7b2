"""Tells a turn's pieces as events while they come.

Its texts, joined, are the steps and the answer as the finished turn has them: unescaped, without the white space
around them. It follows the parser and decides nothing.
"""

import re

from knowledge_store.protocol import CallKind, Piece, Tag, unescape
from service.event import AnswerText, Event, StepCalled, StepStarted, StepText

_UNFINISHED = re.compile(r"(?:&(?:#\d{0,7})?|\s+)\Z")
_ENDS = {Tag.END_LOOKUP: CallKind.LOOKUP, Tag.END_CALC: CallKind.CALC}


class Narrator:
    """Follows one turn; `index` is the number of the step in progress."""

    def __init__(self, index: int = 0, *, thinking: bool = False) -> None:
        self.index = index
        self._thinking = thinking
        self._started = False
        self._filled = False  # the step has prose or a call: an empty line is none
        self._within: Tag | None = None
        self._body = ""
        self._held = ""
        self._begun = False  # some text of the step's prose, or of the answer, was told

    def tell(self, piece: Piece) -> list[Event]:
        """Say what `piece` adds."""
        if isinstance(piece, Tag):
            return self._tell_tag(piece)
        if self._within is not None:
            self._body += piece
            return []
        if not self._thinking:
            return [AnswerText(text) for text in self._settle(piece)]
        *lines, rest = piece.split("\n")
        events: list[Event] = []
        for line in lines:
            events += self._tell_prose(line)
            self._end_step()
        return events + self._tell_prose(rest)

    def _tell_tag(self, tag: Tag) -> list[Event]:
        match tag:
            case Tag.THINK:
                self._thinking, self._held, self._begun = True, "", False
                return self._start_step()
            case Tag.END_THINK:
                self._end_step()
                self._thinking = False
            case Tag.LOOKUP | Tag.CALC | Tag.FACT | Tag.RESULT:
                self._within, self._body = tag, ""
                self._filled = True
                return self._start_step()
            case Tag.END_LOOKUP | Tag.END_CALC:
                self._within, body = None, self._body.strip()
                return [StepCalled(self.index, _ENDS[tag], body)]
            case _:
                self._within = None
        return []

    def _tell_prose(self, text: str) -> list[Event]:
        events: list[Event] = []
        for certain in self._settle(text):
            self._filled = True
            events += [*self._start_step(), StepText(self.index, certain)]
        return events

    def _settle(self, text: str) -> list[str]:
        """Give what is certain: white space and references wait for what follows them."""
        text = self._held + text
        held = _UNFINISHED.search(text)
        self._held = held[0] if held else ""
        text = unescape(text[: len(text) - len(self._held)])
        if not self._begun:
            text = text.lstrip()
        self._begun = self._begun or bool(text)
        return [text] if text else []

    def _start_step(self) -> list[Event]:
        if self._started:
            return []
        self._started = True
        return [StepStarted(self.index)]

    def _end_step(self) -> None:
        if self._filled:
            self.index += 1
            self._started = self._filled = False
        self._held, self._begun = "", False
