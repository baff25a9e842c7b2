"""Our decoding against transformers' own `generate`, token for token, on every architecture that is tested."""

import pytest
import torch
from transformers import AutoModelForCausalLM, GPTNeoXConfig, LlamaConfig, PreTrainedModel, Qwen2Config

from trainer.decoding import by_length, decode

SIZES = {
    "vocab_size": 40, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": 128, "initializer_range": 0.4,
}  # fmt: skip
CONFIGS = {
    "qwen2": Qwen2Config(**SIZES, num_key_value_heads=2),
    "llama": LlamaConfig(**SIZES, num_key_value_heads=2),
    "gpt_neox": GPTNeoXConfig(**SIZES),
    "windowed": Qwen2Config(
        **SIZES, num_key_value_heads=2, use_sliding_window=True, sliding_window=6, max_window_layers=1
    ),
}
PAD, STOPS, BANNED = 0, {1, 2, 3}, [4, 5, 6]


@pytest.fixture(scope="module", params=sorted(CONFIGS))
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    torch.manual_seed(3)
    return AutoModelForCausalLM.from_config(CONFIGS[request.param]).eval()


@pytest.fixture(scope="module")
def prompts() -> list[list[int]]:
    draw = torch.Generator().manual_seed(5)
    lengths = torch.randint(1, 20, (40,), generator=draw).tolist()
    return [torch.randint(7, 40, (length,), generator=draw).tolist() for length in lengths]


def reference(model: PreTrainedModel, prompt: list[int], banned: list[int], most_tokens: int) -> list[int]:
    """One prompt alone: no padding, no batch."""
    out = model.generate(
        torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt), dtype=torch.long), max_new_tokens=most_tokens,
        do_sample=False, eos_token_id=sorted(STOPS),
        pad_token_id=PAD, suppress_tokens=banned or None,
    )  # fmt: skip
    return out[0, len(prompt) :].tolist()


@pytest.mark.parametrize("banned", [[], BANNED])
def test_each_answer_is_what_generate_writes_for_it_alone(
    model: PreTrainedModel, prompts: list[list[int]], banned: list[int]
) -> None:
    made = decode(model, prompts, stops=STOPS, pad_id=PAD, most_tokens=24, banned=banned, batch=16)
    assert made == [reference(model, prompt, banned, 24) for prompt in prompts]
    ended = [ids[-1] in STOPS for ids in made]
    assert any(ended)
    assert len({len(ids) for ids in made}) > 3, "rows leave the batch at different times"


def test_a_row_that_is_told_something_goes_on_as_if_it_had_been_asked_with_it(
    model: PreTrainedModel, prompts: list[list[int]]
) -> None:
    replies = {place: [[7 + place % 30] * (1 + place % 4)] * (place % 3) for place in range(len(prompts))}
    left = {place: list(rows) for place, rows in replies.items()}
    written: list[tuple[int, list[int]]] = []

    def resume(place: int, ids: list[int]) -> list[int]:
        written.append((place, ids))
        return left[place].pop() if left[place] else []

    made = decode(model, prompts, stops=STOPS, pad_id=PAD, most_tokens=10, batch=16, resume=resume)
    for place, prompt in enumerate(prompts):
        wanted: list[int] = []
        legs = []
        for reply in [*replies[place], []]:
            legs.append(reference(model, [*prompt, *wanted], [], 10))
            wanted += [*legs[-1], *reply]
        assert made[place] == wanted
        assert [ids for number, ids in written if number == place] == legs
    assert len(written) == sum(1 + len(rows) for rows in replies.values())


def test_the_caches_of_rows_are_joined_where_they_hold_every_token(prompts: list[list[int]]) -> None:
    batches: dict[str, list[int]] = {}
    for name in ("qwen2", "windowed"):
        torch.manual_seed(3)
        model = AutoModelForCausalLM.from_config(CONFIGS[name]).eval()
        forward, sizes = model.forward, batches.setdefault(name, [])

        def counted(*args, input_ids, sizes=sizes, forward=forward, **options):
            sizes.append(len(input_ids) if input_ids.shape[1] == 1 else 0)
            return forward(*args, input_ids=input_ids, **options)

        model.forward = counted
        decode(model, prompts, stops=(), pad_id=PAD, most_tokens=12, batch=16)
    assert max(batches["qwen2"]) == 16, "parts of four, side by side"
    assert max(batches["windowed"]) == 4


def test_nothing_follows_a_stop_and_nothing_banned_is_sampled(model: PreTrainedModel, prompts: list[list[int]]) -> None:
    torch.manual_seed(7)
    made = decode(model, prompts, stops=STOPS, pad_id=PAD, most_tokens=30, banned=BANNED, temperature=2.0)
    assert not any(token in BANNED for ids in made for token in ids)
    assert not any(token in STOPS for ids in made for token in ids[:-1])
    assert all(len(ids) == 30 or ids[-1] in STOPS for ids in made)
    torch.manual_seed(7)
    assert made == decode(model, prompts, stops=STOPS, pad_id=PAD, most_tokens=30, banned=BANNED, temperature=2.0)


def test_tokens_are_drawn_as_often_as_the_model_says(model: PreTrainedModel, prompts: list[list[int]]) -> None:
    torch.manual_seed(9)
    made = decode(model, prompts[:1] * 4000, stops=(), pad_id=PAD, most_tokens=1, temperature=2.0, batch=4000)
    with torch.no_grad():
        shares = (model(torch.tensor([prompts[0]])).logits[0, -1] / 2.0).softmax(-1)
    counts = torch.bincount(torch.tensor([ids[0] for ids in made]), minlength=40)
    assert (counts / 4000 - shares).abs().max() < 0.04, "five standard errors of a share of a half"


def test_no_prompts_no_answers(model: PreTrainedModel) -> None:
    assert decode(model, [], stops=STOPS, pad_id=PAD, most_tokens=4) == []


def test_batches_hold_every_place_once_and_little_padding() -> None:
    draw = torch.Generator().manual_seed(11)
    lengths = torch.randint(5, 60, (200,), generator=draw).tolist()
    batches = list(by_length(lengths, 64, padding=0.1))
    assert sorted(place for batch in batches for place in batch) == list(range(200))
    assert all(8 <= len(batch) <= 64 for batch in batches[:-1])
    for batch in batches:
        longest = max(lengths[place] for place in batch)
        assert len(batch) == 8 or sum(lengths[place] for place in batch) >= 0.9 * longest * len(batch)
    assert [len(batch) for batch in by_length(lengths, 64)] == [64, 64, 64, 8], "no bound, no split"
    assert list(by_length([], 64)) == []
