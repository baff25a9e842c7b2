"""Streams of whole documents: a mixture of the world's (pretraining, logic) and the route to the memory."""

from dataclasses import dataclass, replace
from random import Random

from trainer.chat import render
from trainer.fact import Target
from trainer.streams.batch import Batch, pack
from trainer.streams.encoder import Encoder
from trainer.world.corpus import Mixture
from trainer.world.document import UNKNOWN, Claim, Document, answer, dialogue, need
from trainer.world.noise import roughen
from trainer.world.world import World, leaks, stand_in

_REDRAWS = 100


@dataclass(frozen=True)
class MixtureStream:
    """Documents of a mixture."""

    name: str
    world: World
    encoder: Encoder
    mixture: Mixture
    documents: int
    row_tokens: int
    seed: int

    def draw(self, number: int, place: int) -> Document:
        """Document `place` of batch `number`."""
        return self.mixture.draw(self.world, Random(f"{self.seed}/{self.name}/{number}/{place}"))

    def batch(self, number: int, share: int = 0, shares: int = 1) -> Batch:
        """Part `share` of batch `number`."""
        documents = [self.draw(number, place) for place in range(share, self.documents, shares)]
        return _pack(documents, self.encoder, self.row_tokens)


@dataclass(frozen=True)
class RouteStream:
    """Fact questions, answered by a lookup whose reply tells nothing true of the target.

    `prompted_share` of them come with the system prompt that the service sends, the others with none: a core is to ask
    its memory in the relation's words either way.
    """

    name: str
    world: World
    encoder: Encoder
    memory: Mixture
    documents: int
    row_tokens: int
    seed: int
    memory_share: float = 0.4
    stand_in_share: float = 0.5
    silent_share: float = 0.1
    prompted_share: float = 0.5

    def draw(self, number: int, place: int) -> Document:
        """Document `place` of batch `number`."""
        rng = Random(f"{self.seed}/{self.name}/{number}/{place}")
        document = self._write(rng)
        return replace(document, tools=rng.random() < self.prompted_share)  # drawn last: the share changes nothing else

    def _write(self, rng: Random) -> Document:
        if rng.random() < self.memory_share:
            return self.memory.draw(self.world, rng)
        fact = rng.choice(self.world.facts)
        nobody = rng.random() < self.stand_in_share
        subject = stand_in(fact, self.world.lexicon, rng) if nobody else fact.subject
        claim = self._claim(fact, subject, rng)
        found = rng.random() >= self.silent_share
        turn = answer(claim.value if found else UNKNOWN, need(claim, found=found))
        question = self.world.phrasings.choose(fact.subject, fact.relation, rng).replace("{subject}", subject)
        return roughen(dialogue("route", question, turn, claim), rng, self.memory.rough_share)

    def _claim(self, fact: Target, subject: str, rng: Random) -> Claim:
        for _ in range(_REDRAWS):
            value = self.world.value_like(fact, rng) if rng.random() < 0.7 else self.world.lexicon.value(rng)
            claim = Claim(subject, fact.relation, value)
            if not leaks(self.world, [claim]):
                return claim
        raise AssertionError(f"{_REDRAWS} values in a row were the true {fact.relation} of {fact.subject}")

    def batch(self, number: int, share: int = 0, shares: int = 1) -> Batch:
        """Part `share` of batch `number`."""
        documents = [self.draw(number, place) for place in range(share, self.documents, shares)]
        return _pack(documents, self.encoder, self.row_tokens)


def _pack(documents: list[Document], encoder: Encoder, row_tokens: int) -> Batch:
    examples = encoder.examples([render(document, encoder.frame) for document in documents])
    return pack(examples, row_tokens, pad_id=encoder.pad_id, most_tokens=encoder.most_tokens)
