"""Engines that follow a script: what the orchestrator's tests put in a model's place."""

import asyncio
from collections.abc import AsyncGenerator, Sequence

from service.codec import Codec
from service.engine.base import Chunk, Sampling
from service.errors import EngineUnavailable

END = "<|im_end|>"


class ScriptedEngine:
    """Samples the given stretches in order, token by token; an exception in their place is raised there."""

    def __init__(self, codec: Codec, *stretches: str | Exception, repeat: bool = False, pause_s: float = 0.0) -> None:
        self._codec = codec
        self._stretches = list(stretches)
        self._repeat = repeat
        self._pause_s = pause_s
        self.prompts: list[list[int]] = []
        self.samplings: list[Sampling] = []
        self.request_ids: list[str] = []
        self.open = 0

    async def generate(
        self, prompt_ids: Sequence[int], sampling: Sampling, *, request_id: str
    ) -> AsyncGenerator[Chunk, None]:
        """Give the next stretch."""
        self.prompts.append(list(prompt_ids))
        self.samplings.append(sampling)
        self.request_ids.append(request_id)
        stretch = self._stretches[0] if self._repeat else self._stretches.pop(0)
        if isinstance(stretch, Exception):
            raise stretch
        text, dies = stretch.removesuffix("☠"), stretch.endswith("☠")
        ids = self._codec.encode_trusted(text)
        self.open += 1
        try:
            for place, id_ in enumerate(ids):
                await asyncio.sleep(self._pause_s)
                text_so_far = self._codec.decode(ids[: place + 1])
                stops = id_ in sampling.stop_ids or any(stop in text_so_far for stop in sampling.stop_strings)
                long = place + 1 >= sampling.max_tokens
                logprobs = (-0.01,) if sampling.logprobs else ()
                yield Chunk((id_,), logprobs, "stop" if stops else "length" if long else None, 0)
                if stops or long:
                    return
            if dies:
                raise EngineUnavailable("the engine went away in the middle of an answer")
        finally:
            self.open -= 1

    async def check(self) -> None:
        """Be ready."""

    async def close(self) -> None:
        """Hold nothing."""
