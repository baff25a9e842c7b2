"""The engine inside this process: transformers on one worker thread, KV caches kept between the hops of an answer.

The one file of the service that imports torch, and only when a model is loaded. For demos, tests and machines without
vLLM: it samples for one request at a time. Not an inference server; no batching.
"""

import asyncio
import math
import threading
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tokenizers import Tokenizer

from service.engine.base import Chunk, Sampling
from service.errors import CoreUnusable, EngineRefused, EngineUnavailable

if TYPE_CHECKING:
    import torch

Precision = Literal["bfloat16", "float32"]
_KEPT_CACHES = 8
_STOP_TAIL_TOKENS = 32
_SMALL_PARAMETERS = 200_000_000
"""Below this, one thread samples: a second one gains a third on an idle machine and costs seven times on a busy one."""


@dataclass(slots=True)
class _Cache:
    """The keys and values of `ids`, as transformers holds them."""

    ids: list[int]
    state: Any


class EmbeddedEngine:
    """A causal language model in this process."""

    def __init__(self, model: Any, tokenizer: Tokenizer) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._limit: int = model.config.max_position_embeddings
        self._vocabulary: int = model.config.vocab_size
        self._caches: OrderedDict[int, _Cache] = OrderedDict()
        self._next_key = 0
        small = sum(weight.numel() for weight in model.parameters()) < _SMALL_PARAMETERS
        self._worker = ThreadPoolExecutor(
            1, thread_name_prefix="embedded-engine", initializer=_use_one_thread if small else None
        )
        self._closed = False

    @classmethod
    def load(cls, folder: Path, *, precision: Precision = "bfloat16") -> "EmbeddedEngine":
        """Load the model in `folder`. Blocks for seconds.

        bfloat16 is the default by measurement: on a CPU, sampling waits for memory, and half the bytes take four
        fifths of the time. It is also what cores are stored in and what vLLM computes in, so the greedy choices of
        the two engines differ only where two tokens tie.

        Raises:
            CoreUnusable: torch is not installed, or the folder holds no causal language model.
        """
        try:
            import torch
            from transformers import AutoModelForCausalLM
            from transformers.utils import logging
        except ImportError as error:
            raise CoreUnusable(
                f"the embedded engine needs torch and transformers ({error}); install digital-metabolism[torch], "
                "or name a vLLM server with --engine URL"
            ) from error
        logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        try:
            model = AutoModelForCausalLM.from_pretrained(
                folder, dtype=getattr(torch, precision), local_files_only=True, trust_remote_code=False
            )
            tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        except (OSError, ValueError, RuntimeError, KeyError) as error:
            raise CoreUnusable(f"{folder} holds no model that transformers can load: {error}") from error
        model.requires_grad_(requires_grad=False)
        model.train(mode=False)
        return cls(model, tokenizer)

    async def generate(
        self, prompt_ids: Sequence[int], sampling: Sampling, *, request_id: str
    ) -> AsyncGenerator[Chunk, None]:
        """Continue `prompt_ids`; see `Engine`. The request's id is of use only to an engine elsewhere."""
        del request_id
        self._refuse_impossible(prompt_ids)
        loop = asyncio.get_running_loop()
        chunks: asyncio.Queue[Chunk | BaseException] = asyncio.Queue()
        cancelled = threading.Event()

        def post(item: Chunk | BaseException) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(chunks.put_nowait, item)

        if self._closed:
            raise EngineUnavailable("the embedded engine was closed")
        self._worker.submit(self._work, list(prompt_ids), sampling, cancelled, post)
        try:
            while True:
                item = await chunks.get()
                if isinstance(item, BaseException):
                    raise item
                yield item
                if item.finish is not None:
                    return
        finally:
            cancelled.set()

    async def check(self) -> None:
        """Return unless closed: a loaded model is always ready."""
        if self._closed:
            raise EngineUnavailable("the embedded engine was closed")

    async def close(self) -> None:
        """Wait for the worker and drop the model and its caches."""
        self._closed = True
        await asyncio.to_thread(self._worker.shutdown, wait=True, cancel_futures=True)
        self._caches.clear()
        self._model = None

    def _refuse_impossible(self, prompt_ids: Sequence[int]) -> None:
        if not prompt_ids:
            raise EngineRefused("the prompt is empty")
        if len(prompt_ids) >= self._limit:
            raise EngineRefused(
                f"the prompt has {len(prompt_ids)} tokens and this core reads at most {self._limit - 1}; shorten it"
            )
        if not 0 <= min(prompt_ids) <= max(prompt_ids) < self._vocabulary:
            raise EngineRefused("the prompt holds a token id outside the core's vocabulary")

    # --- On the worker thread. ---------------------------------------------------------------------------------------

    def _work(
        self,
        prompt_ids: list[int],
        sampling: Sampling,
        cancelled: threading.Event,
        post: Callable[[Chunk | BaseException], None],
    ) -> None:
        try:
            for chunk in self._sample(prompt_ids, sampling, cancelled):
                post(chunk)
        except RuntimeError as error:
            failure = EngineUnavailable(f"the embedded engine failed: {error}")
            failure.__cause__ = error
            post(failure)
        except BaseException as error:  # the caller waits for something
            post(error)
            raise

    def _sample(self, prompt_ids: list[int], sampling: Sampling, cancelled: threading.Event) -> Iterator[Chunk]:
        import torch

        key, cache = self._take_cache(prompt_ids)
        cached_tokens = len(cache.ids)
        generator = torch.Generator()
        if sampling.seed is None:
            generator.seed()
        else:
            generator.manual_seed(sampling.seed)
        budget = min(sampling.max_tokens, self._limit - len(prompt_ids))
        sampled: list[int] = []
        fresh = prompt_ids[cached_tokens:]
        try:
            with torch.inference_mode():
                while not cancelled.is_set():
                    logits_V = self._forward(cache, fresh)
                    token, logprob = _pick(logits_V, sampling, generator)
                    sampled.append(token)
                    fresh = [token]
                    finish = self._finish(sampled, sampling, budget)
                    yield Chunk(
                        (token,),
                        (logprob,) if sampling.logprobs else (),
                        finish,
                        cached_tokens if finish else None,
                    )
                    if finish:
                        return
        finally:
            self._keep_cache(key, cache)

    def _forward(self, cache: _Cache, fresh: list[int]) -> "torch.Tensor":
        import torch

        output = self._model(
            input_ids=torch.tensor([fresh]), past_key_values=cache.state, use_cache=True, logits_to_keep=1
        )
        cache.state = output.past_key_values
        cache.ids += fresh
        logits_V: torch.Tensor = output.logits[0, -1].float()
        return logits_V

    def _finish(self, sampled: list[int], sampling: Sampling, budget: int) -> Literal["stop", "length"] | None:
        if sampled[-1] in sampling.stop_ids:
            return "stop"
        if sampling.stop_strings:
            tail = self._tokenizer.decode(sampled[-_STOP_TAIL_TOKENS:], skip_special_tokens=False)
            if any(stop in tail for stop in sampling.stop_strings):
                return "stop"
        return "length" if len(sampled) >= budget else None

    def _take_cache(self, prompt_ids: list[int]) -> tuple[int, _Cache]:
        """Take the kept cache that shares the longest beginning with the prompt, cut to what they share."""
        from transformers import DynamicCache

        shared = {key: _shared_length(cache.ids, prompt_ids[:-1]) for key, cache in self._caches.items()}
        best = max(shared, key=lambda key: shared[key], default=None)
        if best is not None and shared[best] >= max(1, len(self._caches[best].ids) // 2):
            cache = self._caches.pop(best)
            surplus = len(cache.ids) - shared[best]
            if surplus:
                cache.state.crop(-surplus)
                del cache.ids[-surplus:]
            return best, cache
        self._next_key += 1
        return self._next_key, _Cache([], DynamicCache(config=self._model.config))

    def _keep_cache(self, key: int, cache: _Cache) -> None:
        self._caches[key] = cache
        while len(self._caches) > _KEPT_CACHES:
            self._caches.popitem(last=False)


def _use_one_thread() -> None:
    """Keep torch from splitting the calling thread's work."""
    import torch

    torch.set_num_threads(1)


def _shared_length(left: Sequence[int], right: Sequence[int]) -> int:
    length = min(len(left), len(right))
    return next((place for place in range(length) if left[place] != right[place]), length)


def _pick(logits_V: "torch.Tensor", sampling: Sampling, generator: "torch.Generator") -> tuple[int, float]:
    """Choose a token; its log probability is the model's own, before temperature and top_p, as vLLM reports it."""
    import torch

    if sampling.temperature == 0:
        token = int(logits_V.argmax())
    else:
        probabilities_V = torch.softmax(logits_V / sampling.temperature, -1)
        if sampling.top_p < 1:
            ordered_V, order_V = probabilities_V.sort(descending=True)
            ordered_V[ordered_V.cumsum(-1) - ordered_V >= sampling.top_p] = 0
            probabilities_V = torch.zeros_like(probabilities_V).scatter(0, order_V, ordered_V)
        token = int(torch.multinomial(probabilities_V, 1, generator=generator))
    if not sampling.logprobs:
        return token, math.nan
    return token, float(logits_V[token] - logits_V.logsumexp(-1))
