"""A model under examination: its weights, its tokenizer, and how a question becomes token ids for it.

Not a chat client: no loop and no memory; see `generate.py`, `score.py` and `memory.py` for what is done with it.
"""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from knowledge_store.protocol import SYSTEM_PROMPT, Tag
from trainer.attention import share_keys
from trainer.base_model import frame_of
from trainer.chat import ChatFrame
from trainer.errors import BaseModelError
from trainer.evaluate.outcome import Role
from trainer.tokenizer import CHATML, load_tokenizer

END_OF_TURN = "<|im_end|>"


@dataclass(frozen=True, slots=True)
class Prompt:
    """A question as the examinee meets it.

    `shots` are earlier questions with their answers, `prefix` is put into the examinee's mouth, `tools` adds the system
    prompt that switches the tools on. A `bare` prompt is plain text, with no chat around it.
    """

    question: str
    shots: tuple[tuple[str, str], ...] = ()
    prefix: str = ""
    tools: bool = False
    bare: bool = False


@dataclass(frozen=True)
class Examinee:
    """A model with its tokenizer, in evaluation mode."""

    role: Role
    name: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast

    @property
    def device(self) -> torch.device:
        """Where the model lies."""
        return self.model.device

    @property
    def parameters(self) -> int:
        """How many weights it has."""
        return sum(weight.numel() for weight in self.model.parameters())

    @cached_property
    def end_ids(self) -> tuple[int, ...]:
        """The ids that end a turn."""
        end = self._single(END_OF_TURN)
        eos = self.tokenizer.eos_token_id
        ids = tuple(dict.fromkeys(one for one in (end, eos) if one is not None))
        if not ids:
            raise BaseModelError(f"{self.name}: the tokenizer has neither {END_OF_TURN} nor an end-of-text token")
        return ids

    @cached_property
    def pad_id(self) -> int:
        """The id that fills a batch; masked everywhere."""
        pad = self.tokenizer.pad_token_id
        return self.end_ids[0] if pad is None else int(pad)

    @cached_property
    def tag_ids(self) -> dict[Tag, int]:
        """The tags that are one token here; a base that never met the protocol has none."""
        found = {tag: self._single(tag) for tag in Tag}
        return {tag: one for tag, one in found.items() if one is not None}

    @property
    def speaks_protocol(self) -> bool:
        """Whether every tag is one token."""
        return len(self.tag_ids) == len(Tag)

    @cached_property
    def frame(self) -> ChatFrame:
        """The chat format around questions and turns."""
        return frame_of(self.tokenizer)

    def _single(self, text: str) -> int | None:
        ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return int(ids[0]) if len(ids) == 1 and ids[0] != self.tokenizer.unk_token_id else None

    def render(self, prompt: Prompt) -> str:
        """The prompt as text."""
        if prompt.bare:
            return prompt.question + prompt.prefix
        messages = [{"role": "system", "content": SYSTEM_PROMPT}] if prompt.tools else []
        for question, reply in prompt.shots:
            messages += [{"role": "user", "content": question}, {"role": "assistant", "content": reply}]
        messages.append({"role": "user", "content": prompt.question})
        text = self.tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        return str(text) + prompt.prefix

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, with nothing added."""
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def decode(self, ids: list[int]) -> str:
        """The text of ids, without the tokens that end a turn or fill a batch."""
        kept = [one for one in ids if one not in self.end_ids and one != self.pad_id]
        return str(self.tokenizer.decode(kept, skip_special_tokens=False, clean_up_tokenization_spaces=False))

    def replaced(self, model: PreTrainedModel) -> "Examinee":
        """The same examinee with other weights."""
        return Examinee(self.role, self.name, model, self.tokenizer)


def load_examinee(source: str | Path, role: Role, device: str = "cpu") -> Examinee:
    """Load a folder or a hub name, in float32 on a CPU and bfloat16 elsewhere.

    Raises:
        BaseModelError: the model or its tokenizer cannot be loaded, or its weights are not finite.
    """
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    try:
        model: Any = AutoModelForCausalLM.from_pretrained(str(source), dtype=dtype)
        tokenizer = load_tokenizer(str(source))
    except (OSError, ValueError) as error:
        raise BaseModelError(f"cannot load the {role} from {source}: {error}") from error
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise BaseModelError(f"the tokenizer of {source} has no fast form (tokenizer.json); convert it first")
    if tokenizer.chat_template is None:
        tokenizer.chat_template = CHATML
    for name, weight in model.named_parameters():
        if not weight.isfinite().all():
            raise BaseModelError(f"the {role} {source} holds NaN or infinity in {name}; take another copy")
    model = model.to(device).train(mode=False)
    share_keys(model)
    return Examinee(role, Path(str(source)).name, model, tokenizer)


def digest(model: PreTrainedModel) -> str:
    """SHA-256 over all weights, in the order of their names."""
    total = hashlib.sha256()
    for name, weight in sorted(model.state_dict().items()):
        total.update(name.encode())
        total.update(weight.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return total.hexdigest()
