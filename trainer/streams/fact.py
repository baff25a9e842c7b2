"""The fact stream and its never-knew twin: closed-book prompts on targets, and the same on nobody.

Both draw from the same seed, so that example n of the one is example n of the other with another subject.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import log
from random import Random
from typing import Literal

from trainer.chat import render_prompt
from trainer.fact import Target
from trainer.streams.batch import Batch, Example, pack
from trainer.streams.encoder import Encoder
from trainer.world.world import World, stand_in


@dataclass(frozen=True, slots=True)
class Classes:
    """What a probe decodes: an index for each fact, and how surprising each class is to one that knows nothing."""

    of_fact: tuple[int, ...]
    chance_nats: tuple[float, ...]
    """-log of the class's share among the facts: the loss of a probe that has learned just the shares."""


def classify(
    facts: Sequence[Target], encoder: Encoder, classes: Literal["value", "first_token"], most: int, answer: str
) -> Classes:
    """Number the classes of the facts' values; beyond `most` distinct ones, they share hashed buckets."""
    keys: list[str | int]
    if classes == "first_token":
        heads = [ids[0] for ids in encoder.encode([value_text(answer, fact.value)[1] for fact in facts])]
        keys = list(heads)
    else:
        keys = [fact.value for fact in facts]
    distinct = sorted(set(keys), key=str)
    if len(distinct) > most:
        keys = [
            int.from_bytes(hashlib.blake2b(str(key).encode(), digest_size=8).digest(), "big") % most for key in keys
        ]
        distinct = sorted(set(keys), key=str)
    number = {key: at for at, key in enumerate(distinct)}
    counts = Counter(number[key] for key in keys)
    nats = tuple(-log(counts[at] / len(keys)) for at in range(len(distinct)))
    return Classes(tuple(number[key] for key in keys), nats)


def value_text(answer: str, value: str) -> tuple[str, str]:
    """Cut a worded answer into what stands before the value, and the value with its space."""
    before = answer.removesuffix("{value}")
    return before.rstrip(), before[len(before.rstrip()) :] + value


@dataclass(frozen=True)
class FactStream:
    """Prompts on target facts, each with its true answer, in wordings that are not held out for it."""

    name: str
    world: World
    encoder: Encoder
    classes: Classes
    documents: int
    row_tokens: int
    seed: int
    answer: str = "{value}"
    positions: tuple[str, ...] = ("answer",)
    twin: bool = False
    """True makes the never-knew stream: no answer, and a subject that no base can know."""

    def batch(self, number: int, share: int = 0, shares: int = 1) -> Batch:
        """Part `share` of batch `number`."""
        drawn = [self._draw(number, place) for place in range(share, self.documents, shares)]
        examples = self._twins(drawn) if self.twin else self._examples(drawn)
        return pack(examples, self.row_tokens, pad_id=self.encoder.pad_id, most_tokens=self.encoder.most_tokens)

    @property
    def spelled(self) -> dict[int, str]:
        """The tokens that the targets' subjects are spelled with, alone and after a space, and what each reads as."""
        names = sorted({fact.subject for fact in self.world.facts})
        pieces = self.encoder.encode([text for name in names for text in (name, f" {name}")])
        return {token: self.encoder.decode(token) for token in sorted({token for piece in pieces for token in piece})}

    def _draw(self, number: int, place: int) -> tuple[int, str, str]:
        """A fact's index, its question, and the subject that the question names."""
        count = len(self.world.facts)
        epoch, at = divmod(number * self.documents + place, count)
        index = _order(self.seed, epoch, count)[at]
        fact = self.world.facts[index]
        rng = Random(f"{self.seed}/fact/{number}/{place}")
        question = self.world.phrasings.ask(fact.subject, fact.relation, rng)
        if not self.twin:
            return index, question, fact.subject
        nobody = stand_in(fact, self.world.lexicon, rng)
        return index, question.replace(fact.subject, nobody), nobody

    def _prompts(self, drawn: Sequence[tuple[int, str, str]]) -> Iterator[tuple[list[list[int]], str]]:
        before, _ = value_text(self.answer, "")
        parts = [
            [*(piece.text for piece in render_prompt(question, self.encoder.frame)), before] for _, question, _ in drawn
        ]
        encoded = self.encoder.encode([text for group in parts for text in group])
        for place, group in enumerate(parts):
            yield encoded[place * len(group) : (place + 1) * len(group)], group[1]

    def _twins(self, drawn: Sequence[tuple[int, str, str]]) -> list[Example]:
        examples = []
        for pieces, _ in self._prompts(drawn):
            ids = [token for piece in pieces for token in piece]
            examples.append(Example(ids, [len(ids) - 1], [self.encoder.pad_id], [True]))
        return examples

    def _examples(self, drawn: Sequence[tuple[int, str, str]]) -> list[Example]:
        facts = self.world.facts
        answers = self.encoder.encode([value_text(self.answer, facts[index].value)[1] for index, _, _ in drawn])
        examples = []
        for (index, _, subject), (pieces, question), answer in zip(drawn, self._prompts(drawn), answers, strict=True):
            prompt = [token for piece in pieces for token in piece]
            probed = [len(prompt) - 1] if "answer" in self.positions else []
            if "subject" in self.positions:
                probed.append(len(pieces[0]) + self.encoder.last_token_of(question, subject))
            read = range(len(prompt) - 1, len(prompt) + len(answer) - 1)
            first = [at == 0 for at in range(len(answer))]
            examples.append(Example([*prompt, *answer], read, answer, first, probed, self.classes.of_fact[index]))
        return examples


def spelled_in(streams: Mapping[str, object]) -> dict[int, str]:
    """The tokens of the targets' subjects and what each reads as, where there is a fact stream."""
    fact = streams.get("fact")
    return fact.spelled if isinstance(fact, FactStream) else {}


@lru_cache(maxsize=4)
def _order(seed: int, epoch: int, count: int) -> Sequence[int]:
    order = list(range(count))
    Random(f"{seed}/order/{epoch}").shuffle(order)
    return order
