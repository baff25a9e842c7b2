"""The tokenizer of a new base: byte-level BPE in which a name is spelled the same wherever it stands.

Spaces, digits and marks are tokens of their own. That costs length and buys what a small core lives by: a name that is
copied from the memory is the same tokens in the question, in the call and in the answer.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from knowledge_store.protocol import Tag
from trainer.chat import ChatFrame, render
from trainer.world.document import Document

END_OF_TEXT = "<|endoftext|>"
CHATML_MARKS = ("<|im_start|>", "<|im_end|>")
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""The chat format of Qwen2.5, without a default system prompt."""


def train_tokenizer(documents: Iterable[Document], frame: ChatFrame, vocabulary: int) -> PreTrainedTokenizerFast:
    """Train a tokenizer of `vocabulary` tokens, the protocol's tags included, on documents."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r" "), "isolated"),
            pre_tokenizers.Split(Regex(r"\d|[^\w\s]|\n"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tags = [str(tag) for tag in Tag]
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary - len(tags),
        special_tokens=[END_OF_TEXT, *CHATML_MARKS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        min_frequency=2,
        show_progress=False,
    )
    tokenizer.train_from_iterator(_texts(documents, frame, (*tags, END_OF_TEXT, *CHATML_MARKS)), trainer)
    tokenizer.add_tokens([AddedToken(tag, special=False, normalized=False) for tag in tags])
    fast: PreTrainedTokenizerFast = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer, eos_token=CHATML_MARKS[1], pad_token=END_OF_TEXT
    )
    fast.chat_template = CHATML
    return fast


def load_tokenizer(source: str | Path, revision: str | None = None) -> Any:
    """The tokenizer of a folder or of a model on the hub, as its own `tokenizer.json` has it.

    `AutoTokenizer` goes by the type of the model: for a Qwen2 it puts Qwen2's normalizer and pre-tokenizer in place of
    those of the file (transformers 5.19). So it is asked only where there is no such file.

    Raises:
        OSError, ValueError: there is none, or it cannot be read.
    """
    try:
        return PreTrainedTokenizerFast.from_pretrained(source, revision=revision or "main")
    except (OSError, ValueError):
        return AutoTokenizer.from_pretrained(source, revision=revision)


def _texts(documents: Iterable[Document], frame: ChatFrame, marks: tuple[str, ...]) -> Iterator[str]:
    for document in documents:
        text = "".join(segment.text for segment in render(document, frame))
        for mark in marks:
            text = text.replace(mark, "\0")
        yield from (part for part in text.split("\0") if part)
