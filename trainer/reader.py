"""A causal language model read at chosen places only: logits where a loss is, hidden states where a probe is.

Logits of every token of a packed batch would be the largest tensor of a step by far, and nearly all of them would be
thrown away. Packed neighbours are kept apart by their positions, which transformers turns into a block mask.

Legend: B rows, T tokens, N read places, M probed places, H hidden size, V vocabulary.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from trainer.errors import BaseModelError
from trainer.streams.batch import Batch
from trainer.streams.feed import Stream

_TOLERANCE = 1e-3


@dataclass(frozen=True, slots=True)
class Places:
    """A batch as tensors on the model's device."""

    ids_BT: Tensor
    positions_BT: Tensor
    rows_N: Tensor
    columns_N: Tensor
    labels_N: Tensor
    first_N: Tensor
    rows_M: Tensor
    columns_M: Tensor
    classes_M: Tensor


def to_places(batch: Batch, device: torch.device) -> Places:
    """Move a batch to a device."""
    arrays = (
        batch.ids_BT, batch.positions_BT, batch.rows_N, batch.columns_N, batch.labels_N, batch.first_N,
        batch.rows_M, batch.columns_M, batch.classes_M,
    )  # fmt: skip
    return Places(*(torch.from_numpy(array).to(device, non_blocking=True) for array in arrays))


def read_stream(stream: Stream, device: torch.device, first: int = 0) -> Iterator[Places]:
    """The batches of a stream on a device, from number `first` on, without end."""
    for number in itertools.count(first):
        yield to_places(stream.batch(number), device)


class Reader(nn.Module):
    """The model and its way of being read; what `accelerate` wraps, so every forward goes through it."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    @property
    def layers(self) -> int:
        """How many hidden states there are above the embeddings."""
        return int(self.model.config.num_hidden_layers)

    def forward(
        self, places: Places, hidden_layers: Sequence[int] = (), *, at_probes: bool = False
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Logits (N, V) at the read places, and hidden states of layers at the probed or at the read places.

        Layer 0 is the embeddings; the last is what the head reads.
        """
        output = self.model.base_model(
            input_ids=places.ids_BT,
            position_ids=places.positions_BT,
            use_cache=False,
            output_hidden_states=bool(hidden_layers),
        )
        head = cast("nn.Module", self.model.get_output_embeddings())  # type: ignore[no-untyped-call]
        logits_NV = head(output.last_hidden_state[places.rows_N, places.columns_N])
        rows, columns = (places.rows_M, places.columns_M) if at_probes else (places.rows_N, places.columns_N)
        return logits_NV, tuple(output.hidden_states[layer][rows, columns] for layer in hidden_layers)


def vocabulary_tables(model: PreTrainedModel) -> tuple[Tensor, Tensor]:
    """What tokens are read by and what they are written by, (V, H) each; the same table twice where they are tied."""
    head = cast("nn.Module", model.get_output_embeddings())  # type: ignore[no-untyped-call]
    return cast("Tensor", model.get_input_embeddings().weight), cast("Tensor", head.weight)


def check_reading(reader: Reader) -> None:
    """See that reading at places gives what the model itself gives, and that packed neighbours are kept apart.

    Raises:
        BaseModelError: the model's weights are not finite, it scales its logits after the head, or it lets packed
            documents see each other.
    """
    model = reader.model
    device = next(model.parameters()).device
    ids = torch.arange(2, 10, device=device).unsqueeze(0) % int(model.config.vocab_size)
    alone = Places(ids, torch.arange(8, device=device).unsqueeze(0), *_all_places(8, device))
    packed_ids = torch.cat([ids.flip(1), ids], 1)
    positions = torch.cat([torch.arange(8, device=device)] * 2).unsqueeze(0)
    rows, columns, *rest = _all_places(8, device)
    packed = Places(packed_ids, positions, rows, columns + 8, *rest)
    with torch.no_grad():
        own = model(input_ids=ids, use_cache=False).logits[0]
        if not own.isfinite().all():
            raise BaseModelError(
                "the base's logits are not finite: its weights hold NaN or infinity; take another copy"
            )
        if not torch.allclose(own, reader(alone)[0], atol=_TOLERANCE):
            raise BaseModelError(f"{type(model).__name__} changes its logits after the head, which is not supported")
        if not torch.allclose(own, reader(packed)[0], atol=_TOLERANCE):
            raise BaseModelError(
                f"{type(model).__name__} does not keep packed documents apart by their positions, so it cannot be "
                "trained here; Qwen2, Qwen3, Llama, Mistral, Gemma, Phi-3, GPT-2 and GPT-NeoX do"
            )


def _all_places(count: int, device: torch.device) -> tuple[Tensor, ...]:
    zeros, none = torch.zeros(count, dtype=torch.long, device=device), torch.zeros(0, dtype=torch.long, device=device)
    return zeros, torch.arange(count, device=device), zeros, zeros.bool(), none, none, none
