"""Follows a core's chain of thought: samples, answers its calls, resumes, until the answer.

`Orchestrator` is what lives as long as a core is served; `service.attempt` holds what lives as long as one answer.
Called by the routes, the command line and the facade.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from knowledge_store.generation import Generation
from knowledge_store.protocol import SYSTEM_PROMPT
from knowledge_store.store import Store
from service.attempt import Attempt
from service.codec import Codec, Message
from service.detect.base import StepDetector
from service.detect.spot import spot_subjects
from service.detect.taught import TEACHING, teach
from service.engine.base import Engine
from service.event import Event, Finished
from service.grounding import NUMBER
from service.question import Knowledge, Limits, Question
from service.trace import Answer, Detector

__all__ = ["Knowledge", "Limits", "Message", "Orchestrator", "Question"]


class Orchestrator:
    """Answers questions with one core, one engine and one store."""

    def __init__(
        self,
        engine: Engine,
        codec: Codec,
        store: Store,
        *,
        core: str,
        detectors: Sequence[StepDetector] = (),
        teaching: str | None = None,
    ) -> None:
        """`teaching` is the system prompt that tells the core of its tools; None chooses one, "" leaves it out.

        A core whose tokenizer has the tags gets the protocol's own prompt, which it saw in training, and only where
        the conversation names a subject that the memory knows, or two numbers. Measured with demo cores: without it,
        one stops after the first of two hops, and has 52 of 60 word problems right in words, where the calculator makes
        it 57; with it everywhere, one looks things up in pure logic. Any other model gets `TEACHING`, always.
        """
        self.engine = engine
        self.codec = codec
        self.core = core
        self._store = store
        self._detectors = tuple(detectors)
        self._asked_by = Detector.CALL if codec.has_tags and teaching in (None, "") else Detector.TAUGHT
        self._teaching = TEACHING if teaching is None and not codec.has_tags else teaching

    async def answer(self, question: Question) -> Answer:
        """Answer `question`. What goes wrong underway is told in the answer, with the trace so far.

        Raises:
            KnowledgeError: the store has no such module or generation.
            EngineRefused: the question is too long for the core.
            CoreUnusable: the core's chat template refuses the conversation.
        """
        async with aclosing(self._run(question, stream=False)) as events:
            async for event in events:
                if isinstance(event, Finished):
                    return event.answer
        raise AssertionError("an attempt ends with Finished")

    def stream(self, question: Question) -> AsyncGenerator[Event, None]:
        """Answer `question` event by event; the last is `Finished`. Raises as `answer`, at the first event.

        Close it to give up: the engine's slot is free at once.
        """
        return self._run(question, stream=True)

    async def _run(self, question: Question, *, stream: bool) -> AsyncGenerator[Event, None]:
        knowledge = question.knowledge
        pinned = self._store.generation(knowledge.generation, as_of=knowledge.as_of, modules=knowledge.modules)
        with pinned as generation:
            prompt_ids = self.codec.prompt(self._introduce(question.messages, generation))
            attempt = Attempt(
                question,
                prompt_ids,
                generation,
                engine=self.engine,
                codec=self.codec,
                core=self.core,
                detectors=self._detectors,
                asked_by=self._asked_by,
                stream=stream,
            )
            async with aclosing(attempt.events()) as events:
                async for event in events:
                    yield event

    def _introduce(self, messages: Sequence[Message], generation: Generation) -> Sequence[Message]:
        """Tell the core of its tools, where they may be of use."""
        if self._teaching is not None:
            return teach(messages, self._teaching)
        asked = "\n".join(message.content for message in reversed(messages) if message.role == "user")
        may_ask = len(NUMBER.findall(asked)) > 1 or spot_subjects(asked, generation)
        return teach(messages, SYSTEM_PROMPT) if may_ask else messages
