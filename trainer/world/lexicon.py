"""Words and names of the demo world, drawn from a seeded generator.

`Lexicon.pool` bounds the number of distinct invented names: the tiny world of the tests needs few tokens a name, the
demo world wants names without end.
"""

from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from random import Random

import yaml


@dataclass(frozen=True, slots=True)
class Words:
    """The lists of `words.yaml`."""

    onsets: tuple[str, ...]
    vowels: tuple[str, ...]
    codas: tuple[str, ...]
    organizations: tuple[str, ...]
    given_names: tuple[str, ...]
    months: tuple[str, ...]
    units: tuple[str, ...]
    relations: tuple[str, ...]
    numeric_relations: tuple[str, ...]
    year_relations: tuple[str, ...]
    nouns: tuple[str, ...]


@cache
def words() -> Words:
    """The words, read once."""
    text = resources.files("trainer.world").joinpath("words.yaml").read_text(encoding="utf-8")
    return Words(**{name: tuple(found) for name, found in yaml.safe_load(text).items()})


@dataclass(frozen=True, slots=True)
class Lexicon:
    """Where names come from. `pool` of 0 means names without end; otherwise so many distinct names a kind.

    Of names without end a share of `pieced` is put together from `pieces`, which are a tokenizer's own: syllables alone
    leave out many of the tokens that real names are spelled with, and a core copies only what it has practised.
    """

    pool: int = 0
    extra_relations: tuple[str, ...] = field(default=())
    pieces: tuple[str, ...] = field(default=(), repr=False)
    pieced: float = 0.0

    def _bounded(self, rng: Random, kind: str) -> Random:
        return Random(f"{kind}/{rng.randrange(self.pool)}") if self.pool else rng

    def noun(self, rng: Random) -> str:
        """A common noun."""
        return rng.choice(words().nouns)

    def name(self, rng: Random, syllables: int = 0) -> str:
        """An invented proper name."""
        if self.pieced and self.pieces and not self.pool and rng.random() < self.pieced:
            return "".join(rng.choice(self.pieces) for _ in range(syllables or rng.choice((1, 2, 3))))
        draw = self._bounded(rng, "name")
        count = syllables or draw.choice((1, 2, 2, 3))
        return "".join(
            draw.choice(words().onsets) + draw.choice(words().vowels) for _ in range(count)
        ).capitalize() + draw.choice(words().codas)

    def person(self, rng: Random) -> str:
        """An invented person: one name where names are pooled, else two."""
        return self.name(rng) if self.pool else f"{self.name(rng, 2)} {self.name(rng, 2)}"

    def organization(self, rng: Random) -> str:
        """An invented organization."""
        return self.name(rng) if self.pool else f"{self.name(rng, 2)} {rng.choice(words().organizations)}"

    def code(self, rng: Random) -> str:
        """An identifier, such as AB-204."""
        letters = "".join(rng.choice("ABCDEFGHJKLMNPQRSTUVWXYZ") for _ in range(rng.randint(1, 3)))
        return f"{letters}{rng.choice(('-', '', '/'))}{rng.randint(1, 9999)}"

    def entity(self, rng: Random) -> str:
        """Anything that a question may be about."""
        if self.pool:
            return self.name(rng)
        kind = rng.random()
        if kind < 0.28:
            return self.name(rng)
        if kind < 0.50:
            return self.person(rng)
        if kind < 0.64:
            return f"{self.name(rng)} {rng.choice(words().organizations)}"
        if kind < 0.76:
            return " ".join(self.noun(rng).capitalize() for _ in range(rng.randint(1, 3)))
        if kind < 0.86:
            return f"{rng.choice(('the ', ''))}{' '.join(self.noun(rng) for _ in range(rng.randint(1, 3)))}"
        return self.code(rng) if kind < 0.94 else f"{self.noun(rng).capitalize()} {rng.randint(1, 2030)}"

    def relation(self, rng: Random) -> str:
        """A relation that a user might define."""
        kind = rng.random()
        if kind < 0.15 and self.extra_relations:
            return rng.choice(self.extra_relations)
        if kind < 0.65 or self.pool:
            return rng.choice(words().relations)
        return self.noun(rng) if kind < 0.85 else f"{self.noun(rng)} {self.noun(rng)}"

    def number(self, rng: Random) -> int:
        """A number of a size that is met in practice."""
        low, high = rng.choice(((0, 20), (0, 100), (100, 999), (1000, 2030), (1000, 99999)))
        return rng.randint(low, 99 if self.pool else high) if low < 99 or not self.pool else rng.randint(0, 99)

    def value(self, rng: Random) -> str:
        """Anything that a fact may say."""
        kind = rng.random()
        if self.pool:
            return self.name(rng) if kind < 0.5 else self.noun(rng) if kind < 0.8 else str(rng.randint(0, 99))
        if kind < 0.35:
            return self.name(rng) if kind < 0.2 else self.person(rng)
        if kind < 0.55:
            return str(self.number(rng))
        if kind < 0.63:
            return f"{rng.randint(1, 31)} {rng.choice(words().months)} {rng.randint(1900, 2030)}"
        if kind < 0.70:
            return f"{self.number(rng)} {rng.choice(words().units)}"
        if kind < 0.75:
            return f"{rng.choice(('$', '+', ''))}{self.number(rng)}{rng.choice(('%', '', ''))}"
        if kind < 0.80:
            return self.code(rng)
        if kind < 0.95:
            return " ".join(self.noun(rng) for _ in range(1 if kind < 0.87 else rng.randint(2, 7)))
        return f"{self.noun(rng)}@{self.noun(rng)}.{rng.choice(('com', 'org', 'net'))}"
