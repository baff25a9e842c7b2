"""Relearning, the attack: how a step is cut must not matter to what it learns."""

import copy
from pathlib import Path

import torch

from trainer.evaluate.examinee import load_examinee
from trainer.evaluate.outcome import Role
from trainer.evaluate.relearning import rows_a_part, take_step


def test_a_step_in_parts_of_like_length_is_the_step_in_one_piece(raw_base: Path) -> None:
    whole = load_examinee(raw_base / "base", Role.CORE)
    vocabulary = whole.model.config.vocab_size
    draw = torch.Generator().manual_seed(0)
    examples = [
        (torch.randint(vocabulary, (4 + 3 * row,), generator=draw).tolist(), [7, 11, 13][: 1 + row % 3])
        for row in range(12)
    ]
    after = []
    for rows in (12, 4):
        pupil = whole.replaced(copy.deepcopy(whole.model))
        optimizer = torch.optim.SGD(pupil.model.parameters(), lr=1.0)
        take_step(pupil, examples, optimizer, rows)
        after.append(dict(pupil.model.named_parameters()))
    moved = 0.0
    for name, before in whole.model.named_parameters():
        torch.testing.assert_close(after[0][name], after[1][name], rtol=1e-4, atol=1e-6)
        moved = max(moved, (after[0][name] - before).abs().max().item())
    assert moved > 1e-3, "a step that moves nothing would compare nothing"


def test_only_a_small_model_on_an_accelerator_is_padded_to_the_longest(raw_base: Path) -> None:
    here = load_examinee(raw_base / "base", Role.CORE)
    assert rows_a_part(here, 64) == 21
    assert rows_a_part(here, 9) == 8
    assert rows_a_part(here.replaced(copy.deepcopy(here.model).to("meta")), 64) == 64
