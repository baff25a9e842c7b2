"""What comes in and goes out as JSON on our own routes. OpenAI's objects are in ``chat_schema.py``.

The edge of the house: pydantic here, frozen dataclasses behind. Unknown keys are refused.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, model_validator

from service.question import Knowledge, Limits
from service.settings import Settings
from service.trace import Answer, TraceCall, TraceStep, UsedFact

_NAMED_FIELD = r"\s*(?!\?\s*(?:\||$))[^|\s\x00][^|\x00]*"  # not blank, and not just «?»
_ANY_FIELD = r"\s*[^|\s\x00][^|\x00]*"
_QUERY = rf"^(?:{_NAMED_FIELD}|{_NAMED_FIELD}\|{_ANY_FIELD}|\s*\?\s*\|{_NAMED_FIELD}\|{_NAMED_FIELD})$"
_NOT_BLANK = r"^[^\x00]*[^\s\x00][^\x00]*$"

ModuleName = Annotated[str, StringConstraints(min_length=1, max_length=100)]
NewModuleName = Annotated[ModuleName, Field(json_schema_extra={"pattern": r"^(?:\w[\w .-]{0,98}[\w.-]|\w)$"})]
FORBID = ConfigDict(extra="forbid", frozen=True, strict=True)
FROM_VALUES = ConfigDict(extra="forbid", from_attributes=True)


def _require_text(text: Any) -> Any:
    if isinstance(text, str):
        if "\0" in text:
            raise ValueError("holds a NUL character; take it out")
        if any("\ud800" <= character <= "\udfff" for character in text):
            raise ValueError("is not Unicode text: it holds half of a surrogate pair")
    return text


def _require_question(text: Any) -> Any:
    if isinstance(text, str) and not text.strip():
        raise ValueError("is empty; ask something")
    return _require_text(text)


def _whole(number: Any) -> Any:
    """Let 2.0 be 2, as JSON has it."""
    return int(number) if isinstance(number, float) and number.is_integer() else number


Count = Annotated[int, Field(ge=0, le=2**53), BeforeValidator(_whole)]
Positive = Annotated[int, Field(ge=1, le=2**53), BeforeValidator(_whole)]
Seed = Annotated[int, Field(ge=-(2**53), le=2**53), BeforeValidator(_whole)]
Text = Annotated[str, BeforeValidator(_require_text), Field(json_schema_extra={"pattern": r"^[^\x00]*$"})]
QuestionText = Annotated[str, BeforeValidator(_require_question), Field(json_schema_extra={"pattern": _NOT_BLANK})]
QueryText = Annotated[str, BeforeValidator(_require_text), Field(json_schema_extra={"pattern": _QUERY})]


class KnowledgeChoice(BaseModel):
    """Which facts a question sees."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        json_schema_extra={
            "not": {
                "properties": {"generation": {"type": "integer"}, "as_of": {"type": "string"}},
                "required": ["generation", "as_of"],
            }
        },
    )

    modules: list[ModuleName] | None = Field(
        default=None,
        max_length=256,
        description="Modules in order of precedence; all that are mounted where it is left out.",
    )
    generation: int | None = Field(
        default=None, ge=0, le=2**53, description="Read this generation instead of the newest."
    )
    as_of: AwareDatetime | None = Field(
        default=None, strict=False, description="Read the generation that was the newest at this time (RFC 3339)."
    )
    on_miss: Literal["abstain", "answer"] = Field(
        default="abstain", description="What to do where a fact is missing: say so, or let the core answer from itself."
    )
    on_ungrounded: Literal["mark", "abstain", "allow"] = Field(
        default="mark", description="What to do with an answer that stands in no fact, result or question."
    )

    @model_validator(mode="after")
    def _one_point_in_time(self) -> "KnowledgeChoice":
        if self.generation is not None and self.as_of is not None:
            raise ValueError("give generation or as_of, not both")
        return self

    @property
    def value(self) -> Knowledge:
        """The choice as the orchestrator takes it."""
        modules = None if self.modules is None else tuple(self.modules)
        return Knowledge(modules, self.generation, self.as_of, self.on_miss, self.on_ungrounded)


class LimitsChoice(BaseModel):
    """What an answer may cost at most. The service's own limits hold too."""

    model_config = FORBID

    lookups: Count | None = Field(default=None, description="Lookups.")
    tokens: Positive | None = Field(default=None, description="Sampled tokens.")
    timeout_s: float | None = Field(default=None, gt=0, allow_inf_nan=False, description="Seconds.")


def limits_of(settings: Settings, choice: LimitsChoice | None = None) -> Limits:
    """Give the limits that hold: what was asked for, but never more than the service allows."""
    asked = choice or LimitsChoice()
    return Limits(
        lookups=settings.lookups if asked.lookups is None else min(asked.lookups, settings.lookups),
        tokens=settings.tokens if asked.tokens is None else min(asked.tokens, settings.tokens),
        timeout_s=settings.timeout_s if asked.timeout_s is None else min(asked.timeout_s, settings.timeout_s),
    )


class ReasonRequest(BaseModel):
    """A question."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        json_schema_extra={
            "examples": [{"question": "What is the capital of Kenya?", "knowledge": {"modules": ["geography"]}}]
        },
    )

    question: QuestionText = Field(description="The question, in plain language. Not empty.")
    knowledge: KnowledgeChoice = Field(default_factory=KnowledgeChoice, description="Which facts it sees.")
    limits: LimitsChoice | None = Field(default=None, description="What the answer may cost.")


class CallReply(BaseModel):
    """A question of the core to its memory or its ALU, and the reply that was injected."""

    model_config = FROM_VALUES

    kind: Literal["lookup", "calc"]
    body: str
    reply: str | None
    outcome: Literal["found", "missing", "ambiguous", "computed", "refused"] | None
    match: Literal["exact", "alias", "spelling", "semantic"] | None
    score: float | None
    fact_ids: list[str]
    elapsed_s: float
    detail: str | None = None

    @classmethod
    def of(cls, call: TraceCall) -> "CallReply":
        """Show a call of a trace."""
        return cls.model_validate(call)


class StepReply(BaseModel):
    """A line of the core's thought."""

    model_config = FROM_VALUES

    index: int
    text: str
    calls: list[CallReply]
    detector: Literal["call", "taught", "uncertainty", "claim"] | None = Field(description="What asked for the calls.")
    error: str | None
    withdrawn: str | None = Field(
        default=None, description="What the core had written here before a detector took it back."
    )


class FactUsed(BaseModel):
    """A fact that was injected, from the lookup log: the citation."""

    model_config = FROM_VALUES

    fact_id: str = Field(description="Hash of the fact's content.")
    module: str
    generation: int
    subject: str
    relation: str
    value: str
    source: str | None
    step: int = Field(description="Index of the step that asked for it.")


class UsageReply(BaseModel):
    """Tokens and calls of an answer."""

    model_config = FROM_VALUES

    prompt_tokens: int
    prompt_cached_tokens: int
    completion_tokens: int
    injected_tokens: int
    cached_tokens: int
    resent_tokens: int
    lookups: int
    calcs: int


class TimingsReply(BaseModel):
    """Where the time went, in seconds."""

    model_config = FROM_VALUES

    total_s: float
    engine_s: float
    lookup_s: float


class ReasonReply(BaseModel):
    """An answer with its proof."""

    model_config = ConfigDict(extra="forbid")

    answer: str
    grounded: bool | None = Field(description="Whether each value of the answer stands in a fact, result or question.")
    steps: list[StepReply]
    facts: list[FactUsed]
    generation: int = Field(description="The one generation that all lookups saw.")
    core: str
    usage: UsageReply
    timings: TimingsReply
    finish: Literal["stop", "length", "lookups", "deadline", "loop", "error"] = Field(
        description="Why it ended: the core's own end, or the limit that ended it."
    )
    error: str | None = Field(description="What went wrong, where it did not end by itself.")

    @classmethod
    def of(cls, answer: Answer) -> "ReasonReply":
        """Show an answer."""
        return cls(
            answer=answer.text,
            grounded=answer.grounded,
            steps=show_steps(answer.steps),
            facts=show_facts(answer.facts),
            generation=answer.generation,
            core=answer.core,
            usage=UsageReply.model_validate(answer.usage),
            timings=TimingsReply.model_validate(answer.timings),
            finish=answer.finish.value,
            error=answer.error,
        )


def show_steps(steps: Sequence[TraceStep]) -> list[StepReply]:
    """Show the steps of an answer."""
    return [StepReply.model_validate(step) for step in steps]


def show_facts(facts: Sequence[UsedFact]) -> list[FactUsed]:
    """Show the facts that an answer used."""
    return [FactUsed.model_validate(fact) for fact in facts]
