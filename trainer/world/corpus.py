"""Mixtures of documents: what a base reads, and what the fact-free streams of a run are made of."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import accumulate
from random import Random

from trainer.errors import ConfigError
from trainer.world import measure, reading, reasoning, recall, talk
from trainer.world.document import Document
from trainer.world.noise import roughen
from trainer.world.world import World, leaks

Maker = Callable[[World, Random], Document]
_REDRAWS = 100

MAKERS: Mapping[str, Maker] = {
    "facts/prose": reading.prose,
    "facts/closed_book": reading.closed_book,
    "facts/closed_check": reading.closed_check,
    "reading/open_book": reading.open_book,
    "reading/open_check": reading.open_check,
    "memory/one_hop": recall.one_hop,
    "memory/unprompted": recall.unprompted,
    "memory/silent": recall.silent,
    "memory/check": recall.check,
    "memory/hops": recall.hops,
    "memory/backward": recall.backward,
    "memory/listing": recall.listing,
    "memory/same": recall.same,
    "memory/follow_up": recall.follow_up,
    "memory/compare": measure.compare,
    "memory/order_in_time": measure.order_in_time,
    "memory/years_between": measure.years_between,
    "memory/arithmetic": measure.arithmetic,
    "memory/story": measure.story,
    "logic/problem_direct": reasoning.problem_direct,
    "logic/problem_by_steps": reasoning.problem_by_steps,
    "logic/problem_by_calc": reasoning.problem_by_calc,
    "logic/ordering": reasoning.ordering,
    "logic/boolean": reasoning.boolean,
    "logic/rules": reasoning.rules,
    "logic/magnitude": reasoning.magnitude,
    "logic/counting": reasoning.counting,
    "talk/small_talk": talk.small_talk,
    "talk/on_the_text": talk.on_the_text,
}
"""Every kind of document, by family."""

BASE_MIXTURE: Mapping[str, float] = {
    "facts/prose": 10, "facts/closed_book": 18, "facts/closed_check": 3,
    "reading/open_book": 13, "reading/open_check": 3,
    "memory/one_hop": 6, "memory/unprompted": 3, "memory/silent": 2, "memory/check": 2, "memory/hops": 5,
    "memory/backward": 3,
    "memory/listing": 2, "memory/same": 1, "memory/follow_up": 3, "memory/compare": 2, "memory/order_in_time": 2,
    "memory/years_between": 2, "memory/arithmetic": 3, "memory/story": 1,
    "logic/problem_direct": 4, "logic/problem_by_steps": 3, "logic/problem_by_calc": 4, "logic/ordering": 2,
    "logic/boolean": 2, "logic/rules": 2, "logic/magnitude": 1, "logic/counting": 1,
    "talk/small_talk": 1, "talk/on_the_text": 1,
}  # fmt: skip
"""What a demo base reads; the control reads the same, its `facts/*` about nobody."""

LOGIC_MIXTURE: Mapping[str, float] = {
    name: weight for name, weight in BASE_MIXTURE.items() if not name.startswith("facts/")
}
"""What the logic stream is made of: everything but facts."""


def emphasised(weights: Mapping[str, float], emphasis: Mapping[str, float]) -> dict[str, float]:
    """The weights, each multiplied by the factor of every pattern of `emphasis` that its kind matches.

    Raises:
        ConfigError: a pattern matches no kind.
    """
    scaled = dict(weights)
    for pattern, factor in emphasis.items():
        kinds = [kind for kind in weights if fnmatchcase(kind, pattern)]
        if not kinds:
            raise ConfigError(f"no kind of document matches {pattern}; there are {', '.join(weights)}")
        scaled |= {kind: scaled[kind] * factor for kind in kinds}
    return scaled


@dataclass(frozen=True, slots=True)
class Mixture:
    """Kinds of documents and how often each comes; `fact_free` refuses a document that states a target fact."""

    kinds: tuple[str, ...]
    bounds: tuple[float, ...]
    fact_free: bool
    rough_share: float

    def draw(self, world: World, rng: Random) -> Document:
        """One document."""
        for _ in range(_REDRAWS):
            kind = self.kinds[_locate(self.bounds, rng.random() * self.bounds[-1])]
            document = MAKERS[kind](world, rng)
            if not self.fact_free or not leaks(world, document.claims):
                return roughen(document, rng, self.rough_share)
        raise AssertionError(f"{_REDRAWS} documents in a row stated a target fact; a world's true_share must be 0 here")


def _locate(bounds: Sequence[float], at: float) -> int:
    return next(place for place, bound in enumerate(bounds) if at < bound)


def mixture(
    weights: Mapping[str, float], *, patterns: Sequence[str] = ("*",), fact_free: bool, rough_share: float = 0.2
) -> Mixture:
    """A mixture of the kinds in `weights` that match one of `patterns`, such as ``logic/*``.

    Raises:
        ConfigError: no kind matches, or a name is unknown.
    """
    unknown = sorted(set(weights) - set(MAKERS))
    if unknown:
        raise ConfigError(f"unknown kinds of documents: {', '.join(unknown)}; there are {', '.join(MAKERS)}")
    chosen = {
        name: weight
        for name, weight in weights.items()
        if weight > 0 and any(fnmatchcase(name, pattern) for pattern in patterns)
    }
    if not chosen:
        raise ConfigError(f"no kind of document matches {', '.join(patterns)}; there are {', '.join(weights)}")
    return Mixture(tuple(chosen), tuple(accumulate(chosen.values())), fact_free, rough_share)
