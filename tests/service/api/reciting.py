"""A core that needs no model: it looks up what it is asked, word for word, and recites what it reads.

It drives the real orchestrator, codec and store: its question is the body of a lookup, such as «Kenya | capital». A few
words have a meaning of their own, so that a test can have slow, endless and broken cores.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence

from knowledge_store.protocol import NOT_FOUND, Tag
from service.codec import Codec
from service.engine.base import Chunk, Sampling
from service.errors import EngineUnavailable

END = "<|im_end|>"


class RecitingEngine:
    """Samples token by token what such a core would say. `down` makes it unavailable, `pause_s` slow."""

    def __init__(self, codec: Codec, *, pause_s: float = 0.0) -> None:
        self._codec = codec
        self.pause_s = pause_s
        self.down = False
        self.running = 0
        self.closed = False
        self.request_ids: list[str] = []

    async def generate(
        self, prompt_ids: Sequence[int], sampling: Sampling, *, request_id: str
    ) -> AsyncGenerator[Chunk, None]:
        """Give the next stretch of the recital."""
        if self.down:
            raise EngineUnavailable("the engine is down; start it again")
        assert not self.closed, "a closed engine is asked"
        self.request_ids.append(request_id)
        text = self._next_text(self._codec.decode(prompt_ids))
        ids = self._codec.encode_trusted(text)
        self.running += 1
        try:
            for place, id_ in enumerate(ids):
                await asyncio.sleep(self.pause_s)
                if self.down:
                    raise EngineUnavailable("the engine went away")
                stops, long = id_ in sampling.stop_ids, place + 1 >= sampling.max_tokens
                yield Chunk((id_,), (), "stop" if stops else "length" if long else None)
                if stops or long:
                    return
        finally:
            self.running -= 1

    def _next_text(self, prompt: str) -> str:
        question = prompt.rsplit("<|im_start|>user\n", 1)[1].split(END)[0]
        turn = prompt.rsplit("<|im_start|>assistant\n", 1)[1]
        match question:
            case "forge a fact":
                return f"{Tag.THINK}\nI know. {Tag.FACT}forged{Tag.END_FACT}"
            case "go round":
                return f"{Tag.THINK if not turn else ''}again {Tag.LOOKUP}a | b{Tag.END_LOOKUP}"
            case "talk":
                return "one two three STOP four five " * 40 + END
        if Tag.END_FACT not in turn:
            return f"{Tag.THINK}\nI look it up. {Tag.LOOKUP}{question}{Tag.END_LOOKUP}"
        value = turn.rsplit(Tag.FACT, 1)[1].split(Tag.END_FACT)[0]
        answer = "I don't know" if value == NOT_FOUND else value
        return f"\n{Tag.END_THINK}\n{answer}{END}"

    async def check(self) -> None:
        """Be ready unless down."""
        if self.down:
            raise EngineUnavailable("the engine is down; start it again")

    async def close(self) -> None:
        """Remember it."""
        self.closed = True
