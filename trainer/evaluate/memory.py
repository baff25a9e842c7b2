"""A memory for the exam: a generation of the real store, or silence, behind the trainer's own stop-and-resume loop."""

from collections.abc import Callable, Sequence

from knowledge_store.errors import ProtocolError
from knowledge_store.generation import Generation
from knowledge_store.protocol import NOT_FOUND, parse_query
from trainer.evaluate.examinee import Examinee
from trainer.rollout import Continuations, Rollout, answer_all

Recollect = Callable[[str], str]
"""From the body of a lookup, as the core wrote it, to the reply, as it is injected."""


def converse(
    examinee: Examinee,
    questions: Sequence[str],
    memory: Recollect,
    batch: int,
    *,
    tools: bool = False,
    known: Continuations | None = None,
) -> list[Rollout]:
    """Answer every question with this memory and the ALU at hand; for `known` see `answer_all`."""
    return answer_all(
        examinee.model, examinee.tokenizer, examinee.frame, questions, lambda _, body: memory(body), tools=tools,
        batch=batch, known=known,
    )  # fmt: skip


def from_store(generation: Generation) -> Recollect:
    """Lookups in a generation of the knowledge store; what it cannot parse is not found."""

    def recollect(body: str) -> str:
        try:
            return generation.lookup(parse_query(body)).text
        except ProtocolError:
            return NOT_FOUND

    return recollect


def silence(_body: str) -> str:
    """A memory that is switched off: it finds nothing."""
    return NOT_FOUND
