"""Text to hold on to: JSON lines with `text` or with `messages`, drawn by number, never read whole into memory."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
from numpy.typing import NDArray

from trainer.chat import ChatFrame, Segment
from trainer.errors import StreamError
from trainer.fact import Target
from trainer.streams.batch import Batch, pack
from trainer.streams.encoder import Encoder
from trainer.streams.statement import Statements


@dataclass(frozen=True, slots=True)
class TextSource:
    """A file of text: its digest, how many lines of it are read, and how many state a target fact and are not."""

    name: str
    sha256: str
    rows: int
    left_out: int = 0


@dataclass(frozen=True)
class LineIndex:
    """Where the lines of the files begin: (file, offset) each."""

    paths: tuple[Path, ...]
    starts: NDArray[np.int64]
    sources: tuple[TextSource, ...] = ()

    @property
    def left_out(self) -> int:
        """How many lines state a target fact."""
        return sum(source.left_out for source in self.sources)


def index_lines(paths: Sequence[Path], frame: ChatFrame, facts: Iterable[Target] = ()) -> LineIndex:
    """Find the lines of JSONL files, without those that state one of the facts.

    Raises:
        StreamError: a file cannot be read, a line is malformed, or there is none that may be read.
    """
    starts: list[tuple[int, int]] = []
    sources: list[TextSource] = []
    statements = Statements(facts)
    for number, path in enumerate(paths):
        offset, left_out, before, digest = 0, 0, len(starts), hashlib.sha256()
        try:
            with path.open("rb") as file:
                for line in file:
                    digest.update(line)
                    if line.strip():
                        segments = parse_line(line, frame, f"{path.name} at byte {offset}")
                        if statements.are_in("\n".join(segment.text for segment in segments)):
                            left_out += 1
                        else:
                            starts.append((number, offset))
                    offset += len(line)
        except OSError as error:
            raise StreamError(f"cannot read {path}: {error.strerror}; check streams.neutral.files") from error
        sources.append(TextSource(path.name, digest.hexdigest(), len(starts) - before, left_out))
    if not starts and any(source.left_out for source in sources):
        raise StreamError("every line of the neutral text states a target fact; give text that is about other things")
    if not starts:
        raise StreamError("the neutral stream's files are empty; give JSON lines with text or messages")
    return LineIndex(tuple(paths), np.asarray(starts, np.int64), tuple(sources))


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
