"""Makes a question of plain words, for those who ask without HTTP: the command line and the facade."""

import uuid
from collections.abc import Sequence

from service.codec import Message
from service.errors import QuestionRefused
from service.question import Knowledge, Limits, Question
from service.settings import Settings


def inquire(
    settings: Settings, question: str, *, modules: Sequence[str] | None = None, generation: int | None = None
) -> Question:
    """Make a question.

    Raises:
        QuestionRefused: it is blank, or longer than a server would take.
    """
    if not question.strip():
        raise QuestionRefused("the question is empty; ask something", param="question")
    if len(question.encode("utf-8", "replace")) > settings.max_question_bytes:
        raise QuestionRefused(f"the question is longer than {settings.max_question_bytes:,} bytes", param="question")
    return Question(
        messages=(Message("user", question),),
        knowledge=Knowledge(None if modules is None else tuple(modules), generation),
        limits=Limits(settings.lookups, settings.tokens, settings.timeout_s),
        request_id=uuid.uuid4().hex,
    )
