"""The key-value cache of rows that come and go: written in place, joined with another, narrowed.

transformers' own grows by copying all of it at each token, which on a CPU costs as much as a third of a step.

Legend: B rows, H heads of keys and values, T tokens, D width of a head.
"""

import torch
from torch import Tensor
from torch.nn import functional
from transformers import Cache
from transformers.cache_utils import DynamicLayer

_ROOM = 64  # tokens that a layer makes room for when it has none left


class RoomyLayer(DynamicLayer):  # type: ignore[no-untyped-call]
    """A layer that holds every token [B, H, T, D], with room behind the last."""

    def __init__(self, keys_BHTD: Tensor, values_BHTD: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.lazy_initialization(keys_BHTD, values_BHTD)
        self.keys, self.values = keys_BHTD, values_BHTD
        self._rooms: list[Tensor | None] = [None, None]

    def update(self, key_states: Tensor, value_states: Tensor, *_: object, **__: object) -> tuple[Tensor, Tensor]:
        """Write these tokens behind the others; all of them come back."""
        held = (self.keys, key_states), (self.values, value_states)
        for place, (old_BHTD, new_BHTD) in enumerate(held):
            assert old_BHTD is not None, "the layer was made of keys and values"
            self._rooms[place] = _with_room(self._rooms[place], old_BHTD, new_BHTD)
        self.keys, self.values = (
            room[:, :, : self.get_seq_length() + key_states.shape[2]] for room in self._rooms if room is not None
        )
        return self.keys, self.values


def _with_room(room_BHTD: Tensor | None, old_BHTD: Tensor, new_BHTD: Tensor) -> Tensor:
    """The room with the new behind the old: the same where the old lies at its start and the new fits, else another."""
    start, end = old_BHTD.shape[2], old_BHTD.shape[2] + new_BHTD.shape[2]
    if room_BHTD is None or room_BHTD.data_ptr() != old_BHTD.data_ptr() or room_BHTD.shape[2] < end:
        room_BHTD = old_BHTD.new_empty(*old_BHTD.shape[:2], end + _ROOM, old_BHTD.shape[3])
        room_BHTD[:, :, :start] = old_BHTD
    room_BHTD[:, :, start:end] = new_BHTD
    return room_BHTD


def is_plain(cache: Cache) -> bool:
    """Whether every layer holds keys and values of every token: such caches can be joined and narrowed."""
    return all(type(layer) in (DynamicLayer, RoomyLayer) for layer in cache.layers)


def joined(one: Cache, other: Cache) -> Cache:
    """The rows of both plain caches, right-aligned; the first is used up."""
    width = max(one.get_seq_length(), other.get_seq_length())
    for place, (mine, theirs) in enumerate(zip(one.layers, other.layers, strict=True)):
        keys_BHTD, values_BHTD = (
            torch.cat([widened(getattr(layer, name), width, 2) for layer in (mine, theirs)])
            for name in ("keys", "values")
        )
        one.layers[place] = RoomyLayer(keys_BHTD, values_BHTD)
    return one


def roomy(cache: Cache, rows_B: Tensor | None = None, first: int = 0) -> Cache:
    """These rows of a plain cache, from this column on, with room; the cache is used up."""
    for place, layer in enumerate(cache.layers):
        keys_BHTD, values_BHTD = (getattr(layer, name)[:, :, first:] for name in ("keys", "values"))
        if rows_B is not None:
            keys_BHTD, values_BHTD = keys_BHTD[rows_B], values_BHTD[rows_B]
        cache.layers[place] = RoomyLayer(keys_BHTD, values_BHTD)
    return cache


def widened(tensor: Tensor, width: int, dim: int) -> Tensor:
    """Zeros before it along this dimension, up to the width."""
    missing = width - tensor.shape[dim]
    return functional.pad(tensor, (*(0, 0) * (tensor.ndim - 1 - dim), missing, 0)) if missing else tensor
