"""A turn in the making: token ids, who wrote which, and what they say.

It grows by appending ids. The one way back is `rewind`, to a mark that was set at the start of a step. The
orchestrator owns it; detectors and the trace read it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from knowledge_store.protocol import Origin, Parser, Piece
from service.codec import Codec, PieceStream


@dataclass(frozen=True, slots=True)
class TokenSpan:
    """The ids from `start` to `stop` of a turn, prompt included, and who wrote them."""

    start: int
    stop: int
    origin: Origin


class Transcript:
    """A prompt and the turn that follows it."""

    def __init__(self, codec: Codec, prompt_ids: Sequence[int]) -> None:
        self._codec = codec
        self.prompt_tokens = len(prompt_ids)
        self.ids = list(prompt_ids)
        self.logprobs: list[float | None] = [None] * len(prompt_ids)
        self.spans: list[TokenSpan] = []
        self.parser = Parser()
        self._stream = PieceStream(codec)

    def count(self, origin: Origin) -> int:
        """How many ids of the turn `origin` wrote."""
        return sum(span.stop - span.start for span in self.spans if span.origin is origin)

    def sample(self, ids: Sequence[int], logprobs: Sequence[float] = ()) -> list[Piece]:
        """Append what the core sampled; return the pieces that became certain, not yet given to the parser."""
        self._append(ids, logprobs, Origin.SAMPLED)
        return self._stream.feed(ids)

    def end_stretch(self) -> list[Piece]:
        """Return what was held back of the last stretch of samples."""
        return self._stream.flush()

    def inject(self, ids: Sequence[int]) -> list[Piece]:
        """Append what the memory, the ALU or a detector writes; return its pieces."""
        self._append(ids, (), Origin.INJECTED)
        return self._codec.pieces(ids)

    def rewind(self, length: int) -> None:
        """Drop every id from `length` on, and read again what is left."""
        assert length >= self.prompt_tokens, "a prompt stays as it was asked"
        del self.ids[length:]
        del self.logprobs[length:]
        kept = [span for span in self.spans if span.start < length]
        self.spans = [TokenSpan(span.start, min(span.stop, length), span.origin) for span in kept]
        self.parser = Parser()
        self._stream = PieceStream(self._codec)
        for span in self.spans:
            self.parser.feed(self._codec.pieces(self.ids[span.start : span.stop]), span.origin)

    def _append(self, ids: Sequence[int], logprobs: Sequence[float], origin: Origin) -> None:
        start = len(self.ids)
        self.ids += ids
        self.logprobs += logprobs or [None] * len(ids)
        if self.spans and self.spans[-1].origin is origin:
            self.spans[-1] = TokenSpan(self.spans[-1].start, len(self.ids), origin)
        else:
            self.spans.append(TokenSpan(start, len(self.ids), origin))
