"""Examples packed into rows, several to a row, with the places where the model is read.

Legend: B rows, T tokens of a row, N read places (logits are taken there), M probed places (hidden states).
Packed neighbours never see each other: positions start anew with every example, and the models' masks follow them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainer.errors import StreamError

Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]
_MULTIPLE = 8  # row widths are rounded up to it


@dataclass(frozen=True, slots=True)
class Example:
    """One document as ids.

    `read` are the places whose next token is predicted, `labels` those tokens; `first` marks, among them, the places
    where an answer begins. `probed` are the places whose hidden state a probe reads, `label_class` what it decodes.
    """

    ids: Sequence[int]
    read: Sequence[int]
    labels: Sequence[int]
    first: Sequence[bool] = ()
    probed: Sequence[int] = ()
    label_class: int = -1


@dataclass(frozen=True, slots=True)
class Batch:
    """What a model reads in one forward; the order of the read places is that of the examples."""

    ids_BT: Ints
    positions_BT: Ints
    rows_N: Ints
    columns_N: Ints
    labels_N: Ints
    first_N: Flags
    example_N: Ints
    rows_M: Ints
    columns_M: Ints
    classes_M: Ints
    examples: int
    tokens: int


def pack(examples: Sequence[Example], row_tokens: int, *, pad_id: int, most_tokens: int) -> Batch:
    """Pack examples into rows of `row_tokens`; a longer example gets a row of its own, up to `most_tokens`.

    Raises:
        StreamError: an example is longer than the model can read.
    """
    rows: list[int] = []  # tokens used in each row
    place: list[tuple[int, int]] = []
    for example in examples:
        length = len(example.ids)
        if length > most_tokens:
            raise StreamError(
                f"a document of {length} tokens does not fit into the model's {most_tokens} positions; shorten the "
                "facts' values or the texts"
            )
        row = next((row for row, used in enumerate(rows) if used + length <= row_tokens), len(rows))
        if row == len(rows):
            rows.append(0)
        place.append((row, rows[row]))
        rows[row] += length
    width = -(-max(rows, default=1) // _MULTIPLE) * _MULTIPLE
    ids_BT = np.full((len(rows), width), pad_id, np.int64)
    positions_BT = np.zeros((len(rows), width), np.int64)
    for row, used in enumerate(rows):
        positions_BT[row, used:] = np.arange(width - used)
    for example, (row, start) in zip(examples, place, strict=True):
        ids_BT[row, start : start + len(example.ids)] = example.ids
        positions_BT[row, start : start + len(example.ids)] = np.arange(len(example.ids))
    return Batch(
        ids_BT,
        positions_BT,
        *_read_places(examples, place),
        *_probed_places(examples, place),
        examples=len(examples),
        tokens=sum(rows),
    )


def _read_places(examples: Sequence[Example], place: Sequence[tuple[int, int]]) -> tuple[Ints, Ints, Ints, Flags, Ints]:
    rows, columns, labels, first, owner = [], [], [], [], []
    for number, (example, (row, start)) in enumerate(zip(examples, place, strict=True)):
        count = len(example.read)
        rows += [row] * count
        columns += [start + at for at in example.read]
        labels += list(example.labels)
        first += list(example.first) or [False] * count
        owner += [number] * count
    return _ints(rows), _ints(columns), _ints(labels), np.asarray(first, np.bool_), _ints(owner)


def _probed_places(examples: Sequence[Example], place: Sequence[tuple[int, int]]) -> tuple[Ints, Ints, Ints]:
    rows, columns, classes = [], [], []
    for example, (row, start) in zip(examples, place, strict=True):
        rows += [row] * len(example.probed)
        columns += [start + at for at in example.probed]
        classes += [example.label_class] * len(example.probed)
    return _ints(rows), _ints(columns), _ints(classes)


def _ints(values: Sequence[int]) -> Ints:
    return np.asarray(values, np.int64)
