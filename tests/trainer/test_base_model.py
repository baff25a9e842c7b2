"""Any causal language model carries the protocol: three architectures, and bases that lack things."""

import json
from pathlib import Path

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from knowledge_store.protocol import SYSTEM_PROMPT, Tag
from trainer.base_model import Base, frame_of, load_base
from trainer.config import BaseConfig, FlatConfig, PerturbStage
from trainer.errors import BaseModelError
from trainer.perturb import perturb
from trainer.reader import Reader, check_reading, to_places
from trainer.streams.batch import Example, pack
from trainer.tokenizer import CHATML, load_tokenizer

SHAPE = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
ARCHITECTURES = {
    "qwen2": lambda size: Qwen2ForCausalLM(Qwen2Config(vocab_size=size, num_key_value_heads=1, **SHAPE)),
    "llama": lambda size: LlamaForCausalLM(LlamaConfig(vocab_size=size, num_key_value_heads=1, **SHAPE)),
    "gpt_neox": lambda size: GPTNeoXForCausalLM(GPTNeoXConfig(vocab_size=size, **SHAPE)),
}


KEEP_APART = {
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 2},
    "qwen3": SHAPE | {"head_dim": 16, "num_key_value_heads": 1},
    "mistral": SHAPE | {"num_key_value_heads": 1},
    "gemma": SHAPE | {"head_dim": 16, "num_key_value_heads": 1},
    "phi3": SHAPE | {"pad_token_id": 0, "num_key_value_heads": 1},
}
SEE_EACH_OTHER = {
    "opt": {
        "hidden_size": 32,
        "ffn_dim": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "word_embed_proj_dim": 32,
    },
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 2},
    "mamba": {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4},
}


def made(kind: str, shape: dict[str, int]) -> PreTrainedModel:
    """A model with random weights, as transformers makes it."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, vocab_size=64, **shape))  # type: ignore[no-untyped-call]
    model.train(False)
    assert isinstance(model, PreTrainedModel)
    return model


@pytest.mark.parametrize("kind", KEEP_APART)
def test_an_architecture_that_keeps_packed_documents_apart_can_be_read(kind: str) -> None:
    check_reading(Reader(made(kind, KEEP_APART[kind])))


@pytest.mark.parametrize("kind", SEE_EACH_OTHER)
def test_an_architecture_that_lets_them_see_each_other_is_refused_by_name(kind: str) -> None:
    with pytest.raises(BaseModelError, match=r"ForCausalLM does not keep packed documents apart.*Llama"):
        check_reading(Reader(made(kind, SEE_EACH_OTHER[kind])))


@pytest.fixture(params=ARCHITECTURES)
def foreign(request: pytest.FixtureRequest, raw_base: Path, tmp_path: Path) -> Path:
    """A base of another house: no tags, no pad token."""
    tokenizer = load_tokenizer(raw_base / "base")
    state = tokenizer.backend_tokenizer.to_str()
    for tag in Tag:
        state = state.replace(f'"content":"{tag}"', f'"content":"[{tag.name}]"')
    (tmp_path / "t.json").write_text(state, encoding="utf-8")
    bare = PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "t.json"), eos_token="<|im_end|>")
    bare.chat_template = CHATML
    torch.manual_seed(0)
    ARCHITECTURES[request.param](len(bare)).save_pretrained(tmp_path / "base")
    bare.save_pretrained(tmp_path / "base")
    return tmp_path / "base"


def test_a_base_of_any_architecture_gets_the_tags_and_a_pad_token(foreign: Path) -> None:
    base = load_base(BaseConfig(model=str(foreign)))
    assert set(base.added) == set(map(str, Tag))
    assert base.tokenizer.pad_token is not None
    for tag in Tag:
        (token,) = base.tokenizer(str(tag), add_special_tokens=False)["input_ids"]
        assert base.tokenizer.decode([token], skip_special_tokens=True) == tag
    embeddings = base.model.get_input_embeddings()
    assert embeddings.weight.shape[0] >= len(base.tokenizer)


def test_the_tokenizer_cuts_words_as_its_file_says_whatever_the_model_is(foreign: Path, tmp_path: Path) -> None:
    base = load_base(BaseConfig(model=str(foreign)))
    base.tokenizer.save_pretrained(tmp_path / "core")
    said, kept = (json.loads((folder / "tokenizer.json").read_text("utf-8")) for folder in (foreign, tmp_path / "core"))
    assert said["pre_tokenizer"]["pretokenizers"][0]["pattern"] == {"Regex": " "}
    for part in ("normalizer", "pre_tokenizer", "decoder"):
        assert kept[part] == said[part]


def test_new_rows_are_the_same_each_time(foreign: Path) -> None:
    one, two = (load_base(BaseConfig(model=str(foreign)), seed=3).model.state_dict() for _ in range(2))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_reading_at_places_gives_the_models_own_logits_and_neighbours_stay_apart(foreign: Path) -> None:
    check_reading(Reader(load_base(BaseConfig(model=str(foreign))).model))


def test_packed_examples_read_as_each_alone(foreign: Path) -> None:
    base = load_base(BaseConfig(model=str(foreign)))
    reader = Reader(base.model)
    examples = [Example(list(range(start, start + 9)), [3, 7], [start, start]) for start in (10, 40, 70)]
    together, hidden = reader(places(examples), (1, 2))
    for number, example in enumerate(examples):
        alone, state = reader(places([example]), (1, 2))
        assert torch.allclose(together[2 * number : 2 * number + 2], alone, atol=1e-5)
        assert torch.allclose(hidden[1][2 * number : 2 * number + 2], state[1], atol=1e-5)


def places(examples: list[Example]):
    return to_places(pack(examples, 64, pad_id=0, most_tokens=64), torch.device("cpu"))


def test_the_flat_directions_of_any_architecture_are_found(foreign: Path) -> None:
    model = load_base(BaseConfig(model=str(foreign))).model
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    stage = PerturbStage(kind="perturb", noise=0.5, flat=FlatConfig(mass=0.5))
    text = [places([Example(list(range(10, 40)), list(range(29)), list(range(11, 40)))])]
    changed = perturb(model, stage, seed=0, text=text)
    assert {".mlp." in name for name in changed} == {True, False}
    assert not any(torch.equal(model.get_parameter(name), before[name]) for name in changed)


@pytest.mark.parametrize("where", ["mlp", "attention", "all", "embeddings"])
def test_noise_goes_just_where_it_is_told(foreign: Path, where: str) -> None:
    model = load_base(BaseConfig(model=str(foreign))).model
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    stage = PerturbStage(kind="perturb", noise=0.5, where=(where,))
    changed = set(perturb(model, stage, seed=0))
    assert changed
    for name, weight in model.named_parameters():
        assert torch.equal(weight, before[name]) == (name not in changed)
        if name in changed and before[name].numel() > 1000:
            assert float(weight.std()) < 1.2 * float(before[name].std())


def test_noise_is_the_same_for_the_same_seed_and_of_one_layer_only(foreign: Path) -> None:
    stage = PerturbStage(kind="perturb", noise=1.0, where=("mlp",), layers=(1,))
    models: list[PreTrainedModel] = [load_base(BaseConfig(model=str(foreign))).model for _ in range(2)]
    changed = [perturb(model, stage, seed=5) for model in models]
    assert changed[0] == changed[1]
    assert all(".1." in name for name in changed[0])
    one, two = (model.state_dict() for model in models)
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_names_are_rows_of_the_embedding_table_without_common_ones(foreign: Path) -> None:
    """Facts of a one-token subject live in its row; a space, which every text needs, is left as it was."""
    model = load_base(BaseConfig(model=str(foreign))).model
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    name, space, other = 40, 41, 42
    text = [places([Example([space, other] * 20, [0], [1])])] * 20
    stage = PerturbStage(kind="perturb", noise=1.0, where=("names",))
    changed = perturb(model, stage, seed=0, text=text, spelled={name: "Ida", space: " "})
    table = model.get_input_embeddings().weight
    for key, weight in model.named_parameters():
        rows = (weight != before[key]).nonzero()[:, 0].unique().tolist()
        assert rows == ([name] if weight is table else [])
    assert len(changed) == 1
    with pytest.raises(BaseModelError, match="names"):
        perturb(model, stage, seed=0, text=text, spelled={space: " "})
    with pytest.raises(BaseModelError, match="preserve"):
        perturb(model, stage, seed=0, text=text, spelled={name: "Ida"}, preserve=("*embed*",))


@pytest.mark.parametrize("tied", [True, False])
def test_swapped_names_are_read_and_written_as_each_other(foreign: Path, tied: bool) -> None:
    """The model is the same with its vocabulary relabelled, so what it copied it still copies; no name is its own."""
    model = load_base(BaseConfig(model=str(foreign))).model
    table = model.get_input_embeddings()
    model.get_output_embeddings().weight = table.weight if tied else torch.nn.Parameter(table.weight.detach().clone())
    stage = PerturbStage(kind="perturb", noise=1.0, where=("names",), names="swapped")
    names = list(range(40, 60))
    ids = torch.tensor([[12, *names[:9], 13, *names[5:]]])
    with torch.no_grad():
        before_VH, said_TV = table.weight.clone(), model(ids).logits[0]
        changed = perturb(model, stage, seed=3, spelled=dict.fromkeys(names, "Ida"))
        source = torch.arange(len(before_VH))
        for row in names:
            (found,) = (before_VH == table.weight[row]).all(-1).nonzero()
            assert found.item() != row
            source[row] = found
        assert sorted(source[names].tolist()) == names
        assert torch.allclose(model(source.argsort()[ids]).logits[0], said_TV[:, source], atol=1e-5)
    assert len(changed) == (1 if tied else 2)
    with pytest.raises(BaseModelError, match="two at least"):
        perturb(model, stage, seed=3, spelled={names[0]: "Ida"})


def test_names_are_swapped_with_names_of_like_frequency(foreign: Path) -> None:
    """A row that text never showed and one that it often showed do not change places; a token alone joins the next."""
    model = load_base(BaseConfig(model=str(foreign))).model
    table = model.get_input_embeddings()
    never, rare, often = [40, 41, 42], [50], [60, 61, 62]
    text = [places([Example([*rare, *often * 9], [0], [1])])]
    stage = PerturbStage(kind="perturb", noise=1.0, where=("names",), names="swapped", common=0.5)
    with torch.no_grad():
        before_VH = table.weight.clone()
        perturb(model, stage, seed=3, text=text, spelled=dict.fromkeys((*never, *rare, *often), "Ida"))
    source = {row: int((before_VH == table.weight[row]).all(-1).nonzero().item()) for row in (*never, *rare, *often)}
    assert all(source[row] != row for row in source)
    assert {source[row] for row in (*never, *rare)} == {*never, *rare}
    assert {source[row] for row in often} == set(often)


def test_names_are_swapped_with_names_of_like_form(foreign: Path) -> None:
    """What begins a name takes a row that began names, and what goes on with one a row that went on."""
    model = load_base(BaseConfig(model=str(foreign))).model
    table = model.get_input_embeddings()
    read_as = {40: " Hol", 41: "Hol", 42: "kril", 43: "7", 50: " Je", 51: "Je", 52: "gua", 53: "-"}
    stage = PerturbStage(kind="perturb", noise=1.0, where=("names",), names="swapped")
    with torch.no_grad():
        before_VH = table.weight.clone()
        perturb(model, stage, seed=3, spelled=read_as)
    assert {row: int((before_VH == table.weight[row]).all(-1).nonzero().item()) for row in read_as} == {
        40: 50, 50: 40, 41: 51, 51: 41, 42: 52, 52: 42, 43: 53, 53: 43,
    }  # fmt: skip


def test_preserved_weights_get_no_noise(foreign: Path) -> None:
    model = load_base(BaseConfig(model=str(foreign))).model
    stage = PerturbStage(kind="perturb", noise=1.0, where=("mlp",))
    with pytest.raises(BaseModelError, match="preserve"):
        perturb(model, stage, seed=0, preserve=("*mlp*",))


def test_the_chat_frame_is_that_of_the_template(raw_base: Path) -> None:
    base = load_base(BaseConfig(model=str(raw_base / "base")))
    assert base.added == ()
    assert base.frame.start == "<|im_start|>user\n"
    assert base.frame.start_tools == f"<|im_start|>system\n{SYSTEM_PROMPT}<|im_end|>\n<|im_start|>user\n"
    assert base.frame.reply == "<|im_end|>\n<|im_start|>assistant\n"
    assert base.frame.end == "<|im_end|>"
    assert base.frame.again == "\n<|im_start|>user\n"


def test_a_template_with_its_own_system_prompt_is_followed(raw_base: Path) -> None:
    base = load_base(BaseConfig(model=str(raw_base / "base")))
    base.tokenizer.chat_template = (
        "{% if messages[0].role != 'system' %}<|im_start|>system\nBe good.<|im_end|>\n{% endif %}" + CHATML
    )
    assert frame_of(base.tokenizer).start == "<|im_start|>system\nBe good.<|im_end|>\n<|im_start|>user\n"


def without_template(base: Base, folder: Path) -> Path:
    base.tokenizer.chat_template = None
    base.model.save_pretrained(folder)
    base.tokenizer.save_pretrained(folder)
    return folder


def test_a_base_without_a_chat_template_is_refused_or_given_one(raw_base: Path, tmp_path: Path) -> None:
    folder = without_template(load_base(BaseConfig(model=str(raw_base / "base"))), tmp_path / "plain")
    with pytest.raises(BaseModelError, match=r"set base\.chat_template to chatml"):
        load_base(BaseConfig(model=str(folder)))
    assert load_base(BaseConfig(model=str(folder), chat_template="chatml")).frame.end == "<|im_end|>"


def test_a_base_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(BaseModelError, match="cannot load the base"):
        load_base(BaseConfig(model=str(tmp_path / "none")))
    with pytest.raises(BaseModelError, match="cannot load the base"):
        load_base(BaseConfig(model=str(tmp_path)))


def test_a_digest_tells_weights_apart(raw_base: Path, tmp_path: Path) -> None:
    base = load_base(BaseConfig(model=str(raw_base / "base")))
    assert base.digest == load_base(BaseConfig(model=str(raw_base / "base"))).digest
    perturb(base.model, PerturbStage(kind="perturb", noise=0.1, where=("mlp",)), seed=0)
    base.model.save_pretrained(tmp_path / "other")
    base.tokenizer.save_pretrained(tmp_path / "other")
    assert load_base(BaseConfig(model=str(tmp_path / "other"))).digest != base.digest
