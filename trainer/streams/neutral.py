"""Text to hold on to: JSON lines with `text` or with `messages`, drawn by number, never read whole into memory."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
from numpy.typing import NDArray

from trainer.chat import ChatFrame, Segment
from trainer.errors import StreamError
from trainer.streams.batch import Batch, pack
from trainer.streams.encoder import Encoder


@dataclass(frozen=True)
class LineIndex:
    """Where the lines of the files begin: (file, offset) each."""

    paths: tuple[Path, ...]
    starts: NDArray[np.int64]


def index_lines(paths: Sequence[Path]) -> LineIndex:
    """Find the lines of JSONL files.

    Raises:
        StreamError: a file cannot be read, or there is no line at all.
    """
    starts: list[tuple[int, int]] = []
    for number, path in enumerate(paths):
        try:
            with path.open("rb") as file:
                offset = 0
                for line in file:
                    if line.strip():
                        starts.append((number, offset))
                    offset += len(line)
        except OSError as error:
            raise StreamError(f"cannot read {path}: {error.strerror}; check streams.neutral.files") from error
    if not starts:
        raise StreamError("the neutral stream's files are empty; give JSON lines with text or messages")
    return LineIndex(tuple(paths), np.asarray(starts, np.int64))


@dataclass(frozen=True)
class NeutralStream:
    """Rows of text; a text that is longer than a row is cut."""

    name: str
    encoder: Encoder
    index: LineIndex
    documents: int
    row_tokens: int
    seed: int

    def batch(self, number: int, share: int = 0, shares: int = 1) -> Batch:
        """Part `share` of batch `number`."""
        rendered = [self._read(number, place) for place in range(share, self.documents, shares)]
        limit = min(self.row_tokens, self.encoder.most_tokens)
        examples = []
        for example in self.encoder.examples(rendered):
            kept = [at for at in example.read if at < limit - 1]
            examples.append(type(example)(example.ids[:limit], kept, list(example.labels)[: len(kept)]))
        return pack(examples, self.row_tokens, pad_id=self.encoder.pad_id, most_tokens=self.encoder.most_tokens)

    def _read(self, number: int, place: int) -> tuple[Segment, ...]:
        rng = Random(f"{self.seed}/{self.name}/{number}/{place}")
        file, offset = self.index.starts[rng.randrange(len(self.index.starts))]
        path = self.index.paths[file]
        with path.open("rb") as opened:
            opened.seek(int(offset))
            return parse_line(opened.readline(), self.encoder.frame, f"{path.name} at byte {offset}")


def parse_line(line: bytes, frame: ChatFrame, place: str) -> tuple[Segment, ...]:
    """Read one line: plain text is trained whole, of messages the assistant's.

    Raises:
        StreamError: the line is no JSON object with text or messages; `place` stands in the message.
    """
    try:
        row = json.loads(line)
        if "text" in row:
            return (Segment(str(row["text"]), True),)
        return _messages([(message["role"], str(message["content"])) for message in row["messages"]], frame)
    except (ValueError, KeyError, TypeError) as error:
        raise StreamError(f"{place}: not a JSON object with text or messages ({error})") from error


def _messages(messages: Sequence[tuple[str, str]], frame: ChatFrame) -> tuple[Segment, ...]:
    segments: list[Segment] = []
    opening = frame.start
    for role, content in messages:
        if role == "user":
            segments += [Segment(opening, False), Segment(content, False), Segment(frame.reply, False)]
            opening = frame.again
        elif role == "assistant":
            segments += [Segment(content, True), Segment(frame.end, True)]
    if not segments:
        raise ValueError("no message of a user or an assistant")
    return tuple(segments)
