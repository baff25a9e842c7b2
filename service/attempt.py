"""One answer in the making: the loop of sampling, calling, injecting and resuming, within its budgets.

Lives as long as one request. What goes wrong underway ends the loop and is told in the answer it finishes with.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from knowledge_store.errors import ProtocolError
from knowledge_store.generation import Generation
from knowledge_store.protocol import CallKind, Origin, Piece, Tag
from service.codec import Codec
from service.detect.base import Objection, StepDetector
from service.engine.base import Chunk, Engine, Sampling
from service.errors import EngineRefused, EngineUnavailable
from service.event import Event, Finished, StepReplied, StepWithdrawn
from service.memory import Memory
from service.narrator import Narrator
from service.question import Question
from service.review import Reviewer
from service.timeline import Timeline
from service.trace import Answer, Detector, Finish, Outcome, Timings, Usage
from service.transcript import Transcript
from service.verdict import assemble

_SAME_CALLS = 3
_FAILING_CALLS = 6
_RESUMES = 3
_RESUME_WAIT_S = 0.25


@dataclass(frozen=True, slots=True)
class _End:
    """Why the loop ended."""

    finish: Finish
    error: str | None = None
    unavailable: bool = False


class Attempt:
    """Makes one answer."""

    def __init__(
        self,
        question: Question,
        prompt_ids: Sequence[int],
        generation: Generation,
        *,
        engine: Engine,
        codec: Codec,
        core: str,
        detectors: Sequence[StepDetector],
        asked_by: Detector,
        stream: bool,
    ) -> None:
        self._question = question
        self._engine = engine
        self._codec = codec
        self._core = core
        self._asked_by = asked_by
        self._streams = stream
        self._timeline = Timeline()
        self._memory = Memory(generation, self._timeline)
        self._transcript = Transcript(codec, prompt_ids)
        self._narrator = Narrator()
        self._reviewer = Reviewer(question.messages[-1].content, codec, self._transcript, self._memory, detectors)
        self._held: list[Event] = []  # told once the detectors let the step pass
        self._asked: Counter[tuple[CallKind, str]] = Counter()
        self._end: _End | None = None
        self._hops = self._resumes = 0
        self._engine_s = 0.0
        self._resent_tokens = self._cached_tokens = self._prompt_cached_tokens = 0
        self._deadline = asyncio.get_running_loop().time() + question.limits.timeout_s

    async def events(self) -> AsyncGenerator[Event, None]:
        """Tell what happens; the last event is `Finished`.

        Raises:
            EngineRefused: the engine refused the very first request.
        """
        while self._end is None:
            async with aclosing(self._sample_stretch()) as told:
                async for event in told:
                    yield event
            for event in self._answer_call():
                yield event
        yield Finished(self._finish())

    # --- Sampling ----------------------------------------------------------------------------------------------------

    async def _sample_stretch(self) -> AsyncGenerator[Event, None]:
        """Sample until the core calls, ends its turn or runs out of budget."""
        sampling = self._sampling()
        if sampling.max_tokens <= 0:
            self._end = _End(Finish.LENGTH, f"the answer reached its limit of {self._question.limits.tokens} tokens")
            return
        self._hops += 1
        if self._hops > 1:
            self._resent_tokens += len(self._transcript.ids)
        request_id = f"{self._question.request_id}-{self._hops}"
        self._timeline.begin_turn(len(self._transcript.ids))
        generator = self._engine.generate(self._transcript.ids, sampling, request_id=request_id)
        async with aclosing(generator) as chunks:
            while (chunk := await self._next(chunks)) is not None:
                objection = self._take(chunk)
                if objection is not None:
                    self._take_back(objection)
                for event in self._release(all_of_it=chunk.finish is not None or self._end is not None):
                    yield event
                if objection is not None or chunk.finish is not None or self._end is not None:
                    return

    def _take(self, chunk: Chunk) -> Objection | None:
        """Read a chunk; with detectors id by id, so that a step ends where its line does."""
        if not self._reviewer.active:
            self._held += self._read(self._transcript.sample(chunk.ids, chunk.logprobs), Origin.SAMPLED)
        for place, id_ in enumerate(chunk.ids if self._reviewer.active else ()):
            pieces = self._transcript.sample([id_], chunk.logprobs[place : place + 1])
            self._held += self._read(pieces, Origin.SAMPLED)
            if self._end is not None:
                return None
            if objection := self._reviewer.review(ended=False):
                return objection
        if chunk.finish is None:
            return None
        self._held += self._read(self._transcript.end_stretch(), Origin.SAMPLED)
        self._note_end(chunk)
        if self._end is not None and self._end.finish is Finish.STOP:
            return self._reviewer.review(ended=True)
        return None

    def _take_back(self, objection: Objection) -> None:
        """Withdraw the step in progress and begin it anew with a lookup, which the memory or the core completes."""
        self._end = None
        ids = self._reviewer.withdraw(objection)
        step = len(self._transcript.parser.steps)
        self._held = self._noted([StepWithdrawn(step, objection.detector, objection.reason)])
        self._narrator = Narrator(step, thinking=self._transcript.parser.thinking)
        self._held += self._read(self._transcript.inject(ids), Origin.INJECTED)

    def _release(self, *, all_of_it: bool) -> list[Event]:
        """Give what may be told: without detectors everything, with them what they let pass."""
        if self._reviewer.active and not all_of_it and not self._reviewer.at_line_start:
            return []
        released, self._held = self._held, []
        return released

    def _sampling(self) -> Sampling:
        question = self._question
        return Sampling(
            max_tokens=question.limits.tokens - self._transcript.count(Origin.SAMPLED),
            temperature=question.temperature,
            top_p=question.top_p,
            seed=None if question.seed is None else question.seed + self._hops,
            stop_ids=self._codec.stop_ids,
            stop_strings=self._codec.stop_strings,
            logprobs=self._reviewer.needs_logprobs,
            stream=self._streams or self._reviewer.active,
        )

    async def _next(self, chunks: AsyncGenerator[Chunk, None]) -> Chunk | None:
        """Wait for the engine; None where there is nothing more to wait for."""
        chunk: Chunk | None = None
        started_s = self._timeline.now_s
        try:
            async with asyncio.timeout_at(self._deadline):
                chunk = await anext(chunks, None)
        except TimeoutError:
            limit_s = self._question.limits.timeout_s
            self._end = _End(Finish.DEADLINE, f"the answer took longer than its {limit_s:g} s")
        except EngineRefused as error:
            if self._hops == 1:
                raise
            self._end = _End(Finish.LENGTH, f"the turn outgrew the core: {error}")
        except EngineUnavailable as error:
            await self._wait_for_engine(error)
        finally:
            self._timeline.hear(chunk)
            self._engine_s += self._timeline.now_s - started_s
        return chunk

    async def _wait_for_engine(self, error: EngineUnavailable) -> None:
        """Give an engine that went away underway time to return: ids are append-only, so the turn can go on."""
        self._resumes += 1
        if self._transcript.count(Origin.SAMPLED) == 0 or self._resumes > _RESUMES:
            self._end = _End(Finish.ERROR, str(error), unavailable=True)
            return
        await asyncio.sleep(_RESUME_WAIT_S * self._resumes)

    def _note_end(self, chunk: Chunk) -> None:
        if self._hops > 1:
            self._cached_tokens += chunk.cached_tokens or 0
        else:
            self._prompt_cached_tokens = chunk.cached_tokens or 0
        if chunk.finish == "length":
            self._end = _End(Finish.LENGTH, "the answer reached its limit of tokens")
        elif self._transcript.parser.pending is None and self._end is None:
            self._end = _End(Finish.STOP)

    def _read(self, pieces: Sequence[Piece], origin: Origin) -> list[Event]:
        """Give `pieces` to the parser and tell them."""
        events: list[Event] = []
        for piece in pieces:
            if self._is_beyond_stop(piece, origin):
                continue
            try:
                self._transcript.parser.feed([piece], origin)
            except ProtocolError as error:
                self._end = _End(Finish.ERROR, f"the core broke the protocol: {error}")
                return events
            events += self._noted(self._narrator.tell(piece))
        return events

    def _noted(self, events: list[Event]) -> list[Event]:
        for event in events:
            self._timeline.note(event)
        return events

    def _is_beyond_stop(self, piece: Piece, origin: Origin) -> bool:
        """Whether `piece` is what a stop string left of its last token: the ids keep it, nobody reads it."""
        waits = self._transcript.parser.pending is not None
        return waits and origin is Origin.SAMPLED and not self._codec.has_tags and not isinstance(piece, Tag)

    # --- Calls -------------------------------------------------------------------------------------------------------

    def _answer_call(self) -> list[Event]:
        """Answer the call that waits, if any, within the budgets."""
        call = self._transcript.parser.pending
        if call is None or self._end is not None:
            return []
        self._end = self._over_budget(call.kind, call.body)
        if self._end is not None:
            return []
        step = len(self._transcript.parser.steps)
        logged = self._memory.reply(call, step=step)
        assert logged.reply is not None, "a memory always replies"
        injected = self._codec.reply(call.kind, logged.reply)
        events = self._read(self._transcript.inject(injected), Origin.INJECTED)
        return events + self._noted([StepReplied(step, logged)])

    def _over_budget(self, kind: CallKind, body: str) -> _End | None:
        limit = self._question.limits.lookups
        if kind is CallKind.LOOKUP and self._memory.count(kind) >= limit:
            return _End(Finish.LOOKUPS, f"the core asked for more than {limit} lookups")
        key = (kind, " ".join(body.split()).casefold())
        self._asked[key] += not self._leads_on(key[1])
        if self._asked[key] >= _SAME_CALLS:
            return _End(Finish.LOOP, f"the core asked «{body[:200]}» for the {_SAME_CALLS}rd time")
        last = self._memory.calls[-_FAILING_CALLS:]
        failed = (Outcome.MISSING, Outcome.AMBIGUOUS, Outcome.REFUSED)
        if len(last) == _FAILING_CALLS and all(call.outcome in failed for call in last):
            return _End(Finish.LOOP, f"the core's last {_FAILING_CALLS} calls all failed")
        return None

    def _leads_on(self, body: str) -> bool:
        """Whether `body` asks about what the last call gave: the capital of Djibouti is Djibouti, and has a capital."""
        last = self._memory.calls[-1].reply if self._memory.calls else None
        return last is not None and body.startswith(f"{last.casefold()} |")

    # --- The end -----------------------------------------------------------------------------------------------------

    def _finish(self) -> Answer:
        assert self._end is not None, "the loop has ended"
        total_s = self._timeline.now_s
        transcript = self._transcript
        return assemble(
            self._question,
            transcript.parser.finish(),
            self._memory,
            core=self._core,
            finish=self._end.finish,
            error=self._end.error,
            unavailable=self._end.unavailable,
            asked_by=self._asked_by,
            reviewer=self._reviewer,
            timeline=self._timeline,
            usage=Usage(
                prompt_tokens=transcript.prompt_tokens,
                prompt_cached_tokens=self._prompt_cached_tokens,
                completion_tokens=transcript.count(Origin.SAMPLED),
                injected_tokens=transcript.count(Origin.INJECTED),
                cached_tokens=self._cached_tokens,
                resent_tokens=self._resent_tokens,
                lookups=self._memory.count(CallKind.LOOKUP),
                calcs=self._memory.count(CallKind.CALC),
            ),
            timings=Timings(total_s=total_s, engine_s=self._engine_s, lookup_s=self._memory.elapsed_s),
        )
