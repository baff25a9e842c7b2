"""What comes in and goes out as JSON on the routes of the memory: facts, lookups, updates."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from knowledge_store.change import CommitReport
from knowledge_store.exchange import FactRecord
from knowledge_store.fact import Fact
from knowledge_store.lookup import Ambiguous, Found, Missing, Outcome
from service.api.schema import FROM_VALUES, KnowledgeChoice, NewModuleName, QueryText


class FactReply(BaseModel):
    """A fact as it stands in a generation."""

    model_config = FROM_VALUES

    fact_id: str
    subject: str
    relation: str
    value: str
    module: str
    source: str | None
    aliases: list[str]
    valid_from: str | None
    valid_to: str | None

    @classmethod
    def of(cls, fact: Fact) -> "FactReply":
        """Show a fact."""
        return cls.model_validate(fact)


class FactPage(BaseModel):
    """Some facts; `cursor` asks for the next ones."""

    facts: list[FactReply]
    cursor: str | None
    generation: int


class LookupRequest(BaseModel):
    """A lookup, as a core would write it."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        json_schema_extra={"examples": [{"query": "Kenya | capital"}, {"query": "? | capital | Nairobi"}]},
    )

    query: QueryText = Field(description="«subject | relation», «? | relation | value», «subject | ?» or free text.")
    knowledge: KnowledgeChoice = Field(default_factory=KnowledgeChoice, description="Which facts it sees.")


class LookupReply(BaseModel):
    """What a lookup finds; `text` is exactly what would be injected."""

    outcome: Literal["found", "missing", "ambiguous"]
    text: str
    match: Literal["exact", "alias", "spelling", "semantic"] | None
    score: float | None
    facts: list[FactReply]
    suggestions: list[FactReply] = Field(description="What is near, for people; the core does not see it.")
    generation: int

    @classmethod
    def of(cls, outcome: Outcome, generation: int) -> "LookupReply":
        """Show the outcome of a lookup."""
        found = outcome.facts if isinstance(outcome, Found) else ()
        near: tuple[Fact, ...] = ()
        if isinstance(outcome, Missing):
            near = outcome.suggestions
        elif isinstance(outcome, Ambiguous):
            near = outcome.facts
        names: dict[type[Outcome], Literal["found", "missing", "ambiguous"]] = {
            Found: "found",
            Missing: "missing",
            Ambiguous: "ambiguous",
        }
        matched = None if isinstance(outcome, Missing) else outcome
        return cls(
            outcome=names[type(outcome)],
            text=outcome.text,
            match=matched.match.value if matched else None,
            score=matched.score if matched else None,
            facts=[FactReply.of(fact) for fact in found],
            suggestions=[FactReply.of(fact) for fact in near],
            generation=generation,
        )


class UpdateRequest(BaseModel):
    """A change of one module: all of it or nothing."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        json_schema_extra={
            "examples": [
                {
                    "module": "geography",
                    "mode": "merge",
                    "facts": [{"subject": "Kenya", "relation": "capital", "value": "Nakuru", "source": "an example"}],
                }
            ]
        },
    )

    module: NewModuleName = Field(description="The module; made where there is none.")
    mode: Literal["merge", "replace"] = Field(
        default="merge",
        description="merge adds and changes; replace leaves in the module what is sent and nothing else.",
    )
    facts: list[FactRecord] = Field(description="The facts. A new value of a functional relation replaces the old.")
    dry_run: bool = Field(default=False, description="Only say what would happen.")


class ValueReply(BaseModel):
    """A value on one side of a conflict."""

    value: str
    source: str | None
    fact_id: str
    line: int | None


class ConflictReply(BaseModel):
    """Two values where one is allowed; lookups see `kept`."""

    subject: str
    relation: str
    kept: ValueReply
    other: ValueReply


class UpdateReply(BaseModel):
    """What a change did, or with a dry run would do."""

    module: str
    generation: int = Field(description="The generation that has the outcome; the next request sees it.")
    added: int
    changed: int
    deleted: int
    unchanged: int
    conflicts: list[ConflictReply]
    etag: str = Field(description="The module's new ETag, for If-Match.")
    dry_run: bool


def show_report(report: CommitReport, *, dry_run: bool) -> UpdateReply:
    """Show what a commit did."""
    return UpdateReply(
        module=report.module,
        generation=report.generation,
        added=report.added,
        changed=report.changed,
        deleted=report.deleted,
        unchanged=report.unchanged,
        conflicts=[
            ConflictReply(
                subject=conflict.subject,
                relation=conflict.relation,
                kept=_show_value(conflict.kept, conflict.kept_line),
                other=_show_value(conflict.other, conflict.other_line),
            )
            for conflict in report.conflicts
        ],
        etag=report.etag,
        dry_run=dry_run,
    )


def _show_value(fact: Fact, line: int | None) -> ValueReply:
    return ValueReply(value=fact.value, source=fact.source, fact_id=fact.fact_id, line=line)
