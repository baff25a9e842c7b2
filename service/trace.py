"""What an answer is made of: text, steps with their calls, facts used, counts and times.

Plain frozen values, written by the orchestrator and read by the routes, the command line and the benchmarks. Nothing
here computes, and nothing comes from what the model claims: calls, facts and citations come from the lookup log.
"""

from dataclasses import dataclass
from enum import StrEnum

from knowledge_store.protocol import CallKind


class Finish(StrEnum):
    """Why an answer ended."""

    STOP = "stop"
    LENGTH = "length"
    LOOKUPS = "lookups"
    DEADLINE = "deadline"
    LOOP = "loop"
    ERROR = "error"


class Outcome(StrEnum):
    """How a call ended."""

    FOUND = "found"
    MISSING = "missing"
    AMBIGUOUS = "ambiguous"
    COMPUTED = "computed"
    REFUSED = "refused"


class Detector(StrEnum):
    """What saw that a step needs a fact."""

    CALL = "call"
    TAUGHT = "taught"
    UNCERTAINTY = "uncertainty"
    CLAIM = "claim"


@dataclass(frozen=True, slots=True)
class TraceCall:
    """A call and its reply. `reply` is exactly what was injected, None where the answer ended before it."""

    kind: CallKind
    body: str
    reply: str | None
    outcome: Outcome | None
    match: str | None = None
    score: float | None = None
    fact_ids: tuple[str, ...] = ()
    began_s: float = 0.0
    """Seconds from the answer's start, here and below."""
    elapsed_s: float = 0.0
    detail: str | None = None
    """Why a call was refused, in words for people; the core reads only `reply`."""


@dataclass(frozen=True, slots=True)
class TraceStep:
    """A line of the thought. `detector` says what asked for the calls, None where there are none."""

    index: int
    text: str
    calls: tuple[TraceCall, ...] = ()
    detector: Detector | None = None
    error: str | None = None
    withdrawn: str | None = None
    """What the core had written in this step's place before a detector took it back."""
    began_s: float = 0.0
    ended_s: float = 0.0


@dataclass(frozen=True, slots=True)
class EngineTurn:
    """A hop to the engine: one stretch of sampling, until a call, the end or a limit."""

    began_s: float
    ended_s: float
    context_tokens: int
    """Tokens that it was sent: the prompt and the turn so far."""
    cached_tokens: int | None
    """How many of these came from its cache, where it tells."""
    sampled_tokens: int


@dataclass(frozen=True, slots=True)
class UsedFact:
    """A fact that was injected: the citation. `step` is the index of the step that asked for it."""

    fact_id: str
    module: str
    generation: int
    subject: str
    relation: str
    value: str
    source: str | None
    step: int


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens and calls of one answer. `prompt_tokens` counts the prompt once, however often it was resumed."""

    prompt_tokens: int
    prompt_cached_tokens: int
    """Tokens of the prompt that the engine had in its cache when it first read it."""
    completion_tokens: int
    injected_tokens: int
    cached_tokens: int
    resent_tokens: int
    """Tokens sent to the engine again on resumes; `cached_tokens` of these were served from its cache."""
    lookups: int
    calcs: int


@dataclass(frozen=True, slots=True)
class Timings:
    """Where an answer's time went. What is left of `total_s` is the service's own."""

    total_s: float
    engine_s: float
    lookup_s: float


@dataclass(frozen=True, slots=True)
class Answer:
    """A finished answer, a failed one included: `finish` and `error` say how it ended, `steps` how far it came.

    `grounded` is None where the answer holds no value to check, or where grounding was not asked for.
    """

    text: str
    grounded: bool | None
    steps: tuple[TraceStep, ...]
    facts: tuple[UsedFact, ...]
    generation: int
    core: str
    usage: Usage
    timings: Timings
    finish: Finish
    error: str | None = None
    unavailable: bool = False
    """The engine went away; the same question may be answered later."""
    turns: tuple[EngineTurn, ...] = ()
    """The engine's, one a hop; known in the process that made the answer."""
