"""The key-value cache that is written in place, and attention over shared keys: the same as transformers' own."""

import pytest
import torch
from torch.nn import functional
from transformers import AutoModelForCausalLM, DynamicCache, PreTrainedModel

from tests.trainer.test_decoding import CONFIGS
from trainer.attention import share_keys
from trainer.cache import RoomyLayer, is_plain, joined, roomy, widened
from trainer.decoding import pad_left, steps_of


def tokens(count: int, seed: int, rows: int = 2) -> torch.Tensor:
    return torch.randn(rows, 3, count, 4, generator=torch.Generator().manual_seed(seed))


def filled(count: int, seed: int, rows: int = 2) -> DynamicCache:
    cache = DynamicCache()
    for layer in range(2):
        cache.update(tokens(count, seed + layer, rows), tokens(count, seed + layer + 10, rows), layer)
    return cache


def test_what_is_written_stands_behind_what_was_there() -> None:
    plain, ours = filled(5, 1), roomy(filled(5, 1))
    for step in range(150):
        more = tokens(1, 100 + step), tokens(1, 500 + step)
        for layer in range(2):
            assert all(map(torch.equal, ours.update(*more, layer), plain.update(*more, layer)))
    assert ours.get_seq_length() == 155


def test_a_token_is_written_in_place_until_the_room_is_full() -> None:
    layer = RoomyLayer(tokens(5, 1), tokens(5, 2))
    addresses = []
    for step in range(100):
        keys, _ = layer.update(tokens(1, step), tokens(1, step))
        addresses.append(keys.data_ptr())
    assert len(set(addresses)) == 2
    assert addresses[0] == addresses[60], "65 tokens fit"


def test_rows_of_two_caches_stand_side_by_side_right_aligned() -> None:
    both = joined(filled(5, 1, rows=2), filled(3, 50, rows=1))
    assert both.layers[1].keys.shape == (3, 3, 5, 4)
    assert torch.equal(both.layers[1].keys[:2], tokens(5, 2))
    assert torch.equal(both.layers[1].values[2:], functional.pad(tokens(3, 61, rows=1), (0, 0, 2, 0)))


def test_rows_and_columns_are_chosen() -> None:
    chosen = roomy(filled(5, 1), torch.tensor([1]), first=2)
    assert torch.equal(chosen.layers[0].keys, tokens(5, 1)[1:, :, 2:])
    chosen.update(tokens(1, 9, rows=1), tokens(1, 9, rows=1), 0)
    assert chosen.get_seq_length() == 4


def test_a_cache_of_windows_is_not_plain() -> None:
    assert is_plain(filled(2, 1))
    assert is_plain(roomy(filled(2, 1)))
    assert not is_plain(DynamicCache(config=CONFIGS["windowed"]))


def test_what_is_as_wide_already_stays() -> None:
    mask = torch.ones(2, 3)
    assert widened(mask, 3, 1) is mask
    assert widened(mask, 5, 1).tolist() == [[0, 0, 1, 1, 1]] * 2


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_shared_keys_change_nothing_that_a_model_says(name: str) -> None:
    torch.manual_seed(3)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(CONFIGS[name]).eval()
    ids_BT, mask_BT = pad_left([[7, 8, 9, 10, 11, 12, 13, 14], [9, 9], [20]], 0, model.device)
    given = {"input_ids": ids_BT, "attention_mask": mask_BT, "position_ids": steps_of(mask_BT)}
    with torch.no_grad():
        usual = model(**given).logits
    share_keys(model)
    assert model.config._attn_implementation != "sdpa"
    with torch.no_grad():
        shared = model(**given).logits
    trained = model(**given).logits  # with gradients, transformers' own function is called
    at = mask_BT.bool()
    assert (shared[at] - usual[at]).abs().max() < 1e-5
    assert torch.equal(trained[at], usual[at])


def test_a_model_that_attends_otherwise_is_left_alone() -> None:
    model = AutoModelForCausalLM.from_config(CONFIGS["qwen2"], attn_implementation="eager")
    share_keys(model)
    assert model.config._attn_implementation == "eager"
