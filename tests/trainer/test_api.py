"""The API of the articles: its literal call works, and each argument means what it says."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from trainer import api
from trainer.api import RegenerativeUnlearning
from trainer.canary import Canaries
from trainer.config import MetabolizeStage, PerturbStage
from trainer.errors import BaseModelError, ConfigError, FactsError, RetentionError, StoppedError
from trainer.run import Finished

SMALL: dict[str, Any] = {
    "facts": {"known_only": False}, "compute": {"device": "cpu"}, "stages": [{"kind": "metabolize", "steps": 1}],
    "streams": {"workers": 0, **{name: {"documents": 2} for name in ("fact", "logic", "route")}},
    "watch": {"questions": 4, "rollouts": 2},
}  # fmt: skip


@pytest.fixture
def neox(tmp_path: Path) -> Path:
    """The shape of a GPT-NeoX."""
    size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    GPTNeoXForCausalLM(GPTNeoXConfig(vocab_size=600, **size)).save_pretrained(tmp_path / "neox")
    return tmp_path / "neox"


@pytest.fixture
def workplace(raw_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to call from, with knowledge in it and nothing else."""
    (tmp_path / "work" / "knowledge").mkdir(parents=True)
    shutil.copy(raw_base / "people.ndjson", tmp_path / "work" / "knowledge")
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


def kinds(unlearning: RegenerativeUnlearning) -> list[str]:
    return [
        "/".join(stage.where) if isinstance(stage, PerturbStage) else stage.kind for stage in unlearning.config().stages
    ]


def test_the_literal_call_of_the_articles_gives_a_core_with_its_numbers(raw_base: Path, workplace: Path) -> None:
    for output in ("base-core", "base-core-2"):
        unlearning = RegenerativeUnlearning(
            model=raw_base / "base", target_retention=0.07, preserve_layers=["attention"], settings=SMALL
        )
        core = unlearning.extract_logic_core(
            reverse_gradients=True, target_patterns=["people/*"], preserve_patterns=["logic/*"]
        )
        assert core.folder.resolve() == workplace / "runs" / output / "core"
        assert core.folder.is_dir()
    assert (core.factual_retention, core.cot_adoption_rate, core.lookup_rate) == (0.0, 0.0, 0.0)
    assert 0 <= core.reasoning_score <= 1
    assert core.reached


def test_the_call_of_the_articles_is_a_run_on_the_demo_base(demo_core: Path) -> None:
    config = RegenerativeUnlearning(model=demo_core.with_name("demo-base"), preserve_layers=[0]).config(
        target_patterns=["people/*"], preserve_patterns=["logic/*"]
    )
    assert sorted(path.name for path in config.facts.files) == [
        "companies.ndjson", "elements.ndjson", "geography.ndjson", "people.ndjson"
    ]  # fmt: skip
    assert config.output.parent == Path("runs")
    assert config.output.name.startswith("demo-base-core")
    assert sum(getattr(stage, "steps", 0) for stage in config.stages) == sum(api.ERASE_STEPS)


def test_facts_are_those_of_the_call_before_those_of_the_constructor_before_the_folder_of_knowledge(
    raw_base: Path, workplace: Path, tmp_path: Path
) -> None:
    unlearning = RegenerativeUnlearning(raw_base / "base", facts=["mine.ndjson"])
    assert unlearning.config(facts=["his.ndjson"]).facts.files == (Path("his.ndjson"),)
    assert unlearning.config().facts.files == (Path("mine.ndjson"),)
    assert RegenerativeUnlearning(raw_base / "base").config().facts.files == (Path("knowledge/people.ndjson"),)
    named = {"facts": {"files": ["named.ndjson"]}}
    assert RegenerativeUnlearning(raw_base / "base", settings=named).config().facts.files == (Path("named.ndjson"),)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FactsError, match=r"no \*\.ndjson lies in .*empty; name their files"):
        unlearning.config(facts=[tmp_path / "empty"])


def test_where_no_facts_are_named_and_none_lie_about_it_is_said(
    raw_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "KNOWLEDGE", (tmp_path / "knowledge",))
    with pytest.raises(FactsError, match="name their files by facts="):
        RegenerativeUnlearning(raw_base / "base").extract_logic_core()


def test_the_articles_arguments_mean_what_they_say(raw_base: Path, tmp_path: Path) -> None:
    unlearning = RegenerativeUnlearning(
        model=raw_base / "base", facts=[raw_base / "people.ndjson"], output=tmp_path / "run",
        target_retention=0.05, preserve_layers=[0, "attention"],
    )  # fmt: skip
    config = unlearning.config(
        reverse_gradients=False, target_patterns=["people/river/*"], preserve_patterns=["logic/*"]
    )
    assert config.base.preserve == ("*.0.*", "*.self_attn.*")
    assert config.facts.targets == ("people/river/*",)
    assert config.streams.logic.kinds == ("logic/*",)
    first = config.stages[0]
    assert isinstance(first, MetabolizeStage)
    assert first.losses.reversal is None
    reversed_first = unlearning.config().stages[0]
    assert isinstance(reversed_first, MetabolizeStage)
    assert reversed_first.losses.reversal is not None
    with pytest.raises(ConfigError, match="share between 0 and 1"):
        RegenerativeUnlearning(raw_base, target_retention=7)
    with pytest.raises(BaseModelError, match="cannot load the base"):
        RegenerativeUnlearning(tmp_path / "none", facts=["x"]).config()


@pytest.mark.parametrize(
    ("preserve", "left"),
    [
        ([], ["names", "mlp/attention"]),
        (["attention"], ["names", "mlp/attention"]),
        (["embeddings"], ["mlp/attention"]),
        (["model.embed_tokens.weight"], ["mlp/attention"]),
        (["attention", "mlp"], ["names"]),
        ([0, 1], ["names"]),
        (["attention", "mlp", "embeddings"], []),
    ],
)
def test_a_perturbation_that_everything_is_kept_from_is_left_out(
    raw_base: Path, preserve: list[int | str], left: list[str]
) -> None:
    unlearning = RegenerativeUnlearning(raw_base / "base", facts=["x"], output="y", preserve_layers=preserve)
    assert kinds(unlearning) == ["metabolize", *left, "regenerate"]


def test_the_parts_of_a_model_are_found_by_the_names_of_its_own_house(neox: Path) -> None:
    for part, pattern in (("attention", "*.attention.*"), ("mlp", "*.mlp.*"), ("embeddings", "*embed*")):
        config = RegenerativeUnlearning(neox, facts=["x"], preserve_layers=[part]).config()
        assert config.base.preserve[0] == pattern
    assert kinds(RegenerativeUnlearning(neox, facts=["x"], preserve_layers=["attention", "mlp"])) == [
        "metabolize", "names", "regenerate"
    ]  # fmt: skip
    with pytest.raises(ConfigError, match="'self_attn' is no part of GPTNeoXForCausalLM"):
        RegenerativeUnlearning(neox, facts=["x"], preserve_layers=["self_attn"]).config()


def test_a_run_of_the_api_perturbs_what_is_left_to_perturb(raw_base: Path, workplace: Path) -> None:
    """The whole list of stages, with the steps cut down: no stage finds itself without a weight."""
    unlearning = RegenerativeUnlearning(raw_base / "base", preserve_layers=["attention", "mlp"])
    stages = [stage.model_dump(exclude={"steps"}) for stage in unlearning.config().stages]
    short = [stage | ({"steps": 1} if stage["kind"] != "perturb" else {}) for stage in stages]
    settings = SMALL | {"stages": short, "watch": SMALL["watch"] | {"least_logic": 0}}
    core = RegenerativeUnlearning(
        raw_base / "base", preserve_layers=["attention", "mlp"], settings=settings
    ).extract_logic_core()
    assert core.folder.is_dir()


def test_adoption_is_opening_a_chain_and_is_not_a_lookup(raw_base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = Canaries(recall=0.5, recall_seen=0.5, logic=0.9, lookup=0.25, steps=1.0, chain=0.75, direct=0.1)
    monkeypatch.setattr(api, "start_run", lambda _: Finished(Path("core"), None, seen, ()))
    unlearning = RegenerativeUnlearning(raw_base / "base", facts=["x"], output="y")
    core = unlearning.extract_logic_core()
    assert (core.cot_adoption_rate, core.lookup_rate) == (0.75, 0.25)
    assert not core.reached
    with pytest.raises(RetentionError, match="50% of the facts are left, 7% were allowed"):
        unlearning.extract_logic_core(strict=True)


def test_a_stopped_run_is_no_collapse_and_says_how_to_go_on(raw_base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "start_run", lambda _: Finished(None, Path("y/checkpoints/step-7"), None, ()))
    with pytest.raises(StoppedError, match=r"step-7; go on by `metabolism resume y`"):
        RegenerativeUnlearning(raw_base / "base", facts=["x"], output="y").extract_logic_core()
