"""Attention over shared keys without copies of them: on a CPU half of a decoding step went into these copies.

Where several heads share keys (grouped queries) and there is a mask, transformers writes the keys once for each head
before it calls torch's attention, for the sake of kernels on a GPU. Torch's kernel for the CPU takes them shared.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

_NAME = "sdpa_shared_keys"


def share_keys(model: PreTrainedModel) -> None:
    """Let a model on a CPU attend so, if it uses torch's attention; what it computes stays the same."""
    if model.device.type == "cpu" and model.config._attn_implementation == "sdpa":
        AttentionInterface.register(_NAME, _attend)
        AttentionMaskInterface.register(_NAME, sdpa_mask)
        model.set_attn_implementation(_NAME)


def _attend(
    module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """As transformers' own; its arguments, and its result [batch, tokens, heads, width]."""
    if torch.is_grad_enabled() or attention_mask is None or options.get("position_bias") is not None:
        attended: tuple[Tensor, None] = sdpa_attention_forward(module, query, key, value, attention_mask, **options)
        return attended
    mixed = functional.scaled_dot_product_attention(
        query, key, value, attn_mask=attention_mask, scale=options.get("scaling"), enable_gqa=True
    )
    return mixed.transpose(1, 2).contiguous(), None
