"""The boundary to whatever samples tokens.

An engine knows ids only: no text, no tags, no lookups. The orchestrator is its one caller; a test's scripted engine
implements the same Protocol.
"""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol


@dataclass(frozen=True, slots=True)
class Sampling:
    """How one stretch is sampled. It ends after the first of `stop_ids`, or once its text holds a stop string."""

    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    stop_ids: tuple[int, ...] = ()
    stop_strings: tuple[str, ...] = ()
    logprobs: bool = False
    stream: bool = True
    """False: one chunk at the end will do, which costs an engine behind a network less."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """The next sampled ids, the stop token included. `finish` is set on the last chunk, and only there."""

    ids: tuple[int, ...]
    logprobs: tuple[float, ...] = ()
    """Natural logarithms, one an id, where the sampling asked for them."""
    finish: Literal["stop", "length"] | None = None
    cached_tokens: int | None = None
    """On the last chunk: how many of the prompt's tokens came from the engine's cache, where it tells."""


class Engine(Protocol):
    """Samples tokens for many requests at once."""

    def generate(
        self, prompt_ids: Sequence[int], sampling: Sampling, *, request_id: str
    ) -> AsyncGenerator[Chunk, None]:
        """Continue `prompt_ids`. Closing the generator frees its slot in the engine at once.

        Raises:
            EngineUnavailable: the engine is down or went away; the same request may succeed later.
            EngineRefused: the engine will never accept this request (too long, an id outside the vocabulary).
        """
        ...

    async def check(self) -> None:
        """Return when a request would be served now.

        Raises:
            EngineUnavailable: with the reason and what to do.
        """
        ...

    async def close(self) -> None:
        """Free what the engine holds. It is of no use afterwards."""
        ...
