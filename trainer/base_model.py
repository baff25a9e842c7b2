"""Any causal language model of transformers, made able to carry the protocol.

The one file that owns the loading of models and tokenizers; its errors are translated here.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from huggingface_hub.errors import HFValidationError
from tokenizers import AddedToken
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast
from transformers.utils import logging as transformers_logging

from knowledge_store.protocol import SYSTEM_PROMPT, Tag
from trainer.chat import ChatFrame
from trainer.config import BaseConfig
from trainer.errors import BaseModelError
from trainer.streams.encoder import Encoder
from trainer.tokenizer import CHATML, CHATML_MARKS, load_tokenizer

_FALLBACK_POSITIONS = 2048
_ERRORS_ONLY = 40  # as in `logging`


@dataclass(frozen=True, slots=True)
class Base:
    """A base that carries the protocol: its model, its tokenizer with the tags, its chat frame."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    frame: ChatFrame
    name: str
    digest: str
    added: tuple[str, ...]
    """Tokens that the base did not have."""

    @property
    def encoder(self) -> Encoder:
        """What streams encode with."""
        most = getattr(self.model.config, "max_position_embeddings", None) or _FALLBACK_POSITIONS
        return Encoder(
            self.tokenizer.backend_tokenizer.to_str(), self.frame, int(self.tokenizer.pad_token_id), int(most)
        )


def load_base(config: BaseConfig, *, seed: int = 0) -> Base:
    """Load a base in float32, on the CPU; add the tags, a pad token and, if asked for, a chat template.

    Raises:
        BaseModelError: it is not there, is no causal language model, has no fast tokenizer, or has no chat template
            and `chat_template` is not chatml.
    """
    try:
        tokenizer = load_tokenizer(config.model, config.revision)
        model = AutoModelForCausalLM.from_pretrained(config.model, revision=config.revision, dtype=torch.float32)
    except (OSError, ValueError, HFValidationError) as error:
        raise _cannot_load(config, error) from error
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise BaseModelError(f"the tokenizer of {config.model!r} has no fast form (tokenizer.json); convert it first")
    added = equip(tokenizer, config.chat_template, config.model)
    grow(model, tokenizer, seed)
    model.train(False)
    return Base(model, tokenizer, frame_of(tokenizer), config.model, digest_of(model, Path(config.model)), added)


def load_shape(config: BaseConfig) -> PreTrainedModel:
    """A base without its weights: their names and sizes, which take no memory.

    Raises:
        BaseModelError: it is not there, or is no causal language model.
    """
    try:
        shape = AutoConfig.from_pretrained(config.model, revision=config.revision)
        with torch.device("meta"):
            made = AutoModelForCausalLM.from_config(shape)  # type: ignore[no-untyped-call]
    except (OSError, ValueError, HFValidationError) as error:
        raise _cannot_load(config, error) from error
    return cast("PreTrainedModel", made)


def _cannot_load(config: BaseConfig, error: Exception) -> BaseModelError:
    return BaseModelError(
        f"cannot load the base {config.model!r}: {str(error).splitlines()[0]}; give a folder with a causal "
        "language model and its tokenizer, or its name on the hub"
    )


def equip(tokenizer: PreTrainedTokenizerFast, chat_template: str, name: str) -> tuple[str, ...]:
    """Give a tokenizer the tags, a pad token and, if asked for, a chat template; the added tokens come back.

    Raises:
        BaseModelError: as `load_base`.
    """
    wanted = [AddedToken(str(tag), special=False, normalized=False) for tag in Tag]
    if chat_template == "chatml":
        wanted += [AddedToken(mark, special=True, normalized=False) for mark in CHATML_MARKS]
        tokenizer.chat_template = CHATML
    if not tokenizer.chat_template:
        raise BaseModelError(
            f"the base {name!r} has no chat template; set base.chat_template to chatml to give it that of Qwen2.5"
        )
    known = tokenizer.get_vocab()
    missing = [token for token in wanted if token.content not in known]
    tokenizer.add_tokens(missing)
    if chat_template == "chatml":
        tokenizer.eos_token = CHATML_MARKS[1]
    if tokenizer.eos_token is None:
        raise BaseModelError(f"the tokenizer of {name!r} has no end-of-turn token; set its eos_token")
    if tokenizer.pad_token is None:  # padding is never attended to, so any token will do
        tokenizer.pad_token = tokenizer.eos_token
    return tuple(token.content for token in missing)


def grow(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, seed: int) -> None:
    """Make room for added tokens; the new rows are drawn around the mean of the old ones, the same each time."""
    rows = int(cast("Tensor", model.get_input_embeddings().weight).shape[0])
    if len(tokenizer) > rows:
        verbosity = transformers_logging.get_verbosity()
        transformers_logging.set_verbosity(_ERRORS_ONLY)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model.resize_token_embeddings(len(tokenizer), mean_resizing=True)
        transformers_logging.set_verbosity(verbosity)
    model.config.pad_token_id = tokenizer.pad_token_id
    model.config.eos_token_id = tokenizer.eos_token_id
    if model.generation_config is not None:
        model.generation_config.pad_token_id = tokenizer.pad_token_id
        model.generation_config.eos_token_id = tokenizer.eos_token_id


def frame_of(tokenizer: PreTrainedTokenizerFast) -> ChatFrame:
    """Learn the chat frame from the tokenizer's template, by rendering marked messages.

    Raises:
        BaseModelError: the template hides or changes what it is given.
    """
    user, other, turn = "QUESTIONONE", "QUESTIONTWO", "TURNONE"

    def rendered(*messages: tuple[str, str], open_turn: bool) -> str:
        chat = [{"role": role, "content": content} for role, content in messages]
        return str(tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=open_turn))

    plain = rendered(("user", user), open_turn=True)
    tools = rendered(("system", SYSTEM_PROMPT), ("user", user), open_turn=True)
    two = rendered(("user", user), ("assistant", turn), ("user", other), open_turn=True)
    if user not in plain or SYSTEM_PROMPT not in tools or turn not in two or other not in two:
        raise BaseModelError("the chat template leaves out messages; set base.chat_template to chatml")
    start, reply = plain.split(user)
    between = two[two.index(turn) + len(turn) : two.index(other)]
    end, again = _cut_end(between, tokenizer)
    return ChatFrame(start, tools.split(user)[0], reply, end, again)


def _cut_end(between: str, tokenizer: PreTrainedTokenizerFast) -> tuple[str, str]:
    """Cut what stands between turns into the end that the model samples, and the rest."""
    marks = [str(tokenizer.eos_token), *map(str, tokenizer.all_special_tokens)]
    for mark in marks:
        at = between.find(mark)
        if at >= 0 and not between[:at].strip():
            end = at + len(mark)
            return between[:end], between[end:]
    eos = str(tokenizer.eos_token)
    return eos, between


def digest_of(model: PreTrainedModel, folder: Path) -> str:
    """What identifies the base's weights: the digest of its files, or its commit on the hub."""
    commit = getattr(model.config, "_commit_hash", None)
    if not folder.is_dir():
        return f"commit:{commit}"
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")) or sorted(folder.glob("*.bin")):
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return f"sha256:{digest.hexdigest()}"
