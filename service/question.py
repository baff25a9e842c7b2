"""What the orchestrator is asked: a conversation, which knowledge may answer it, and how much it may cost.

Already validated values; the routes and the command line make them from outside data.
"""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from service.codec import Message


@dataclass(frozen=True, slots=True)
class Knowledge:
    """Which facts a question sees, and what to do where they do not suffice."""

    modules: tuple[str, ...] | None = None
    """In order of precedence; None means all that are mounted."""
    generation: int | None = None
    as_of: datetime | None = None
    on_miss: Literal["abstain", "answer"] = "abstain"
    """After a lookup that found nothing: say so, or let the core answer from itself (and mark it)."""
    on_ungrounded: Literal["mark", "abstain", "allow"] = "mark"
    """With an answer that no fact, result or question supports: mark it, say nothing instead, or let it pass."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one answer may cost. `tokens` counts sampled ones, `timeout_s` the whole answer."""

    lookups: int = 16
    tokens: int = 1024
    timeout_s: float = 60.0


@dataclass(frozen=True, slots=True)
class Question:
    """A conversation whose last message waits for an answer."""

    messages: tuple[Message, ...]
    knowledge: Knowledge = field(default_factory=Knowledge)
    limits: Limits = field(default_factory=Limits)
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    request_id: str = ""
