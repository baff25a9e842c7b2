"""Text to ids, many segments at a time; holds a fast tokenizer, which travels to the workers as JSON."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from tokenizers import Tokenizer

from trainer.chat import ChatFrame, Segment
from trainer.streams.batch import Example


@dataclass(frozen=True)
class Encoder:
    """A tokenizer with the protocol's tags, and the chat frame around what it encodes."""

    tokenizer_json: str
    frame: ChatFrame
    pad_id: int
    most_tokens: int

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer itself, made where it is used."""
        tokenizer = Tokenizer.from_str(self.tokenizer_json)
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return tokenizer

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text, without marks of begin or end."""
        return [found.ids for found in self.tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]

    def decode(self, token: int) -> str:
        """What a token reads as, with a space that it begins with."""
        return str(self.tokenizer.decode([token]))

    def pieces_of(self, texts: Sequence[str]) -> tuple[str, ...]:
        """The tokens of letters alone (and a space before them), and as often again those that spell `texts`."""
        size = self.tokenizer.get_vocab_size()
        every = {token: text for token in range(size) if (text := self.decode(token).strip()).isalpha()}
        own = sorted({token for ids in self.encode(texts) for token in ids} & set(every))
        return (*every.values(), *(every[token] for token in own for _ in range(len(every) // len(own))))

    def last_token_of(self, text: str, part: str) -> int:
        """The place, among the tokens of `text`, of the last token of `part`; of the text's last where it is absent."""
        found = self.tokenizer.encode(text, add_special_tokens=False)
        start = text.find(part)
        at = found.char_to_token(start + len(part) - 1) if start >= 0 and part else None
        return len(found.ids) - 1 if at is None else int(at)

    def examples(self, documents: Sequence[Sequence[Segment]]) -> list[Example]:
        """Documents as examples whose read places are those before trained tokens."""
        encoded = iter(self.encode([segment.text for document in documents for segment in document]))
        return [_join(document, [next(encoded) for _ in document]) for document in documents]


def _join(segments: Sequence[Segment], encoded: Sequence[Sequence[int]]) -> Example:
    ids: list[int] = []
    read: list[int] = []
    for segment, part in zip(segments, encoded, strict=True):
        if segment.trained:
            read += range(max(len(ids) - 1, 0), len(ids) + len(part) - 1)
        ids += part
    return Example(ids, read, [ids[at + 1] for at in read])
