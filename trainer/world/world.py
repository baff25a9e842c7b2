"""The world that documents speak of: real facts, their wording, and the names of everything else."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from random import Random

from trainer.fact import Target
from trainer.world.document import Claim
from trainer.world.lexicon import Lexicon, words
from trainer.world.phrasing import Phrasings

_REDRAWS = 50
_KEPT = frozenset({"of", "the", "and"})


@dataclass(frozen=True)
class World:
    """All that a document can be made of.

    `real_share` is how often a subject of a reading or memory document is a real one, and `true_share` how often
    its value is then the true one: a base may see some, a logic stream none (0.0), so that what is learned is to copy
    from the memory.
    """

    facts: tuple[Target, ...]
    phrasings: Phrasings
    lexicon: Lexicon = field(default_factory=Lexicon)
    real_share: float = 0.25
    true_share: float = 0.0

    @cached_property
    def values(self) -> dict[tuple[str, str], str]:
        """The true value of each (subject, relation)."""
        return {fact.key: fact.value for fact in self.facts}

    @cached_property
    def by_relation(self) -> dict[str, tuple[Target, ...]]:
        """The facts of each relation."""
        groups: dict[str, list[Target]] = {}
        for fact in self.facts:
            groups.setdefault(fact.relation, []).append(fact)
        return {relation: tuple(facts) for relation, facts in groups.items()}

    @cached_property
    def by_subject(self) -> dict[str, tuple[Target, ...]]:
        """The facts of each subject."""
        groups: dict[str, list[Target]] = {}
        for fact in self.facts:
            groups.setdefault(fact.subject, []).append(fact)
        return {subject: tuple(facts) for subject, facts in groups.items()}

    @cached_property
    def subjects(self) -> tuple[str, ...]:
        """All real subjects."""
        return tuple(self.by_subject)

    def is_true(self, claim: Claim) -> bool:
        """Whether a claim is one of the facts."""
        return self.values.get((claim.subject, claim.relation)) == claim.value

    def entity(self, rng: Random) -> str:
        """A subject, real now and then."""
        if self.subjects and rng.random() < self.real_share / 2:
            return rng.choice(self.subjects)
        return self.lexicon.entity(rng)

    def another(self, subject: str, rng: Random) -> str:
        """An invented subject that is not this one: of one subject, a memory holds one value of a relation."""
        other = self.lexicon.entity(rng)
        for _ in range(_REDRAWS):
            if other != subject:
                break
            other = self.lexicon.entity(rng)
        return other

    def value_like(self, fact: Target, rng: Random) -> str:
        """A value of the same kind that is not the true one, where there is another."""
        peers = self.by_relation[fact.relation]
        for _ in range(_REDRAWS):
            value = rng.choice(peers).value
            if value != fact.value:
                return value
        return self.lexicon.value(rng)

    def claim(self, rng: Random) -> Claim:
        """Something to read from a memory: mostly about nobody, else real, true or counterfactual."""
        if self.facts and rng.random() < self.real_share:
            fact = rng.choice(self.facts)
            if rng.random() < self.true_share:
                return Claim(fact.subject, fact.relation, fact.value)
            value = self.lexicon.value(rng) if rng.random() < 0.4 else self.value_like(fact, rng)
            return Claim(fact.subject, fact.relation, value)
        relation = self.relation(rng)
        peers = self.by_relation.get(relation, ())
        value = rng.choice(peers).value if peers and rng.random() < 0.5 else self.lexicon.value(rng)
        return Claim(self.lexicon.entity(rng), relation, value)

    def relation(self, rng: Random) -> str:
        """A relation, one of the facts' own now and then."""
        if self.by_relation and rng.random() < 0.4:
            return rng.choice(tuple(self.by_relation))
        return self.lexicon.relation(rng)

    def wording(self, relation: str) -> Phrasings:
        """The wording of a relation; in a small world of pooled names, everyday words are for its facts alone."""
        return self.phrasings.plain if self.lexicon.pool and relation not in self.by_relation else self.phrasings

    def ask(self, claim: Claim, rng: Random) -> str:
        """A question for a claim, never in a wording that is held out for it."""
        return self.wording(claim.relation).ask(claim.subject, claim.relation, rng)

    def state(self, claim: Claim, rng: Random) -> str:
        """A sentence that states a claim."""
        return self.wording(claim.relation).state(claim.subject, claim.relation, claim.value, rng)


def stand_in(fact: Target, lexicon: Lexicon, rng: Random) -> str:
    """A subject of the fact's kind that no base can know, made of the shape of the real one.

    The number of words and a word such as «Labs» stay; every other word is invented, so that a prompt's shape tells
    nothing about whether its subject exists.
    """
    made = [
        word if place and (word in words().organizations or word in _KEPT) else lexicon.name(rng)
        for place, word in enumerate(fact.subject.split())
    ]
    return " ".join(made)


def leaks(world: World, claims: Sequence[Claim]) -> tuple[Claim, ...]:
    """The claims that are target facts: a fact-free stream has none."""
    return tuple(claim for claim in claims if world.is_true(claim))
