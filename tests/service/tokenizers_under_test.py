"""A tokenizer of the kind that Qwen2 has, built here: byte-level, with its pattern, ChatML tokens and our tags."""

import json

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from knowledge_store.protocol import Tag
from service.codec import Codec

PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CHATML = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] | trim + '<|im_end|>'"
    " + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
MERGES = [
    ("<", "/"),
    ("Ġ", "<"),
    ("<", "|"),
    ("|", ">"),
    ("i", "m"),
    ("t", "h"),
    ("Ġ", "t"),
    ("e", "r"),
    ("Ċ", "Ċ"),
    (">", "Ċ"),
]


def qwen_like(*, with_tags: bool = True) -> Codec:
    """Build it; without tags it is like a stock model's, which was never trained on them."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [*alphabet, *(left + right for left, right in MERGES)]
    tokenizer = Tokenizer(models.BPE(vocab={word: id_ for id_, word in enumerate(words)}, merges=MERGES))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    if with_tags:
        tokenizer.add_tokens([AddedToken(tag, special=False, normalized=False) for tag in Tag])
    again = Tokenizer.from_str(json.dumps(json.loads(tokenizer.to_str())))
    return Codec(again, CHATML, [again.token_to_id("<|im_end|>")])
