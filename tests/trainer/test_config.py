"""What a run file may say, and what is said of one that cannot be used."""

from pathlib import Path

import pytest
import yaml

from trainer.config import MetabolizeStage, PerturbStage, PretrainConfig, RunConfig, parse_config, read_run
from trainer.errors import ConfigError

PLAIN: dict[str, object] = {
    "output": "runs/one",
    "base": {"model": "models/base"},
    "facts": {"files": ["knowledge/people.ndjson"]},
    "stages": [{"kind": "metabolize", "steps": 10}],
}


def test_a_plain_file_gets_the_defaults(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(PLAIN), encoding="utf-8")
    config = read_run(path)
    assert config.facts.held_out == 0.2
    stage = config.stages[0]
    assert isinstance(stage, MetabolizeStage)
    assert stage.losses.reversal is not None
    assert stage.losses.reversal.capped


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"sede": 1}, "sede: unknown key; did you mean seed?"),
        ({"base": {"modle": "x"}}, "did you mean model?"),
        ({"stages": [{"kind": "metabolize", "steps": 1, "lerning_rate": 1}]}, "did you mean learning_rate?"),
        ({"stages": [{"kind": "metabolise", "steps": 1}]}, "metabolise"),
        ({"stages": []}, "stages"),
        ({"stages": [{"kind": "metabolize", "steps": 1, "losses": {}}]}, "at least one loss"),
        ({"facts": {"files": []}}, "facts.files"),
        ({"facts": {"files": ["a"], "answer": "no slot"}}, "facts.answer"),
        ({"streams": {"fact": {"positions": []}}}, "streams.fact.positions"),
        ({"streams": {"neutral": {}}}, "either files or a dataset"),
        ({"stages": [{"kind": "perturb", "noise": 0}]}, "greater than 0"),
        ({"stages": [{"kind": "perturb", "noise": 1.1}]}, "less than or equal to 1"),
        ({"stages": [{"kind": "perturb", "noise": 1, "mass": 0.9}]}, "mass: unknown key; it stands under flat"),
        ({"stages": [{"kind": "perturb", "noise": 1, "flat": {"mass": 90}}]}, "flat.mass"),
        ({"stages": [{"kind": "perturb", "noise": 1, "flat": {"mas": 0.9}}]}, "did you mean mass?"),
        ({"stages": [{"kind": "perturb", "noise": 1, "flat": {}, "where": ["embeddings"]}]}, "not embeddings"),
        (
            {"stages": [{"kind": "perturb", "noise": 1, "flat": {}}], "compute": {"shard": True}},
            "does not go together with compute.shard",
        ),
    ],
)
def test_a_file_that_cannot_be_used_says_where_and_why(change: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=r"run\.yaml cannot be used") as caught:
        parse_config(RunConfig, PLAIN | change, "run.yaml")
    assert said in str(caught.value)


def test_a_misspelt_key_of_a_stage_is_the_only_thing_said() -> None:
    stages = [{"kind": "metabolize", "steps": 1, "lerning_rate": 1}]
    with pytest.raises(ConfigError) as caught:
        parse_config(RunConfig, PLAIN | {"stages": stages}, "run.yaml")
    said = "  stages.0.metabolize.lerning_rate: unknown key; did you mean learning_rate?"
    assert str(caught.value).splitlines() == ["run.yaml cannot be used:", said]


@pytest.mark.parametrize(
    ("losses", "said"),
    [
        ({"anchor": {"streams": ["neutral"]}}, r"streams\.neutral"),
        ({"anchor": {"streams": ["logic", "drill"]}}, r"streams\.drill\.kinds"),
        ({"practice": {"streams": ["drill"]}}, r"streams\.drill\.kinds"),
    ],
)
def test_a_loss_needs_the_stream_that_it_is_on(losses: dict[str, object], said: str) -> None:
    stage = {"kind": "metabolize", "steps": 1, "losses": losses}
    with pytest.raises(ConfigError, match=said):
        parse_config(RunConfig, PLAIN | {"stages": [stage]}, "run.yaml")


@pytest.mark.parametrize("of", [[0, 1], [0, 3], [0, 7], [-1, 0]], ids=["perturb", "itself", "none", "below"])
def test_only_the_ends_of_earlier_steps_are_averaged(of: list[int]) -> None:
    steps, noise = {"kind": "regenerate", "steps": 1}, {"kind": "perturb", "noise": 0.5}
    parse_config(RunConfig, PLAIN | {"stages": [steps, noise, steps, {"kind": "average", "of": [0, 2]}]}, "run.yaml")
    with pytest.raises(ConfigError, match=r"averages earlier stages of steps, and stage .* is none"):
        parse_config(RunConfig, PLAIN | {"stages": [steps, noise, steps, {"kind": "average", "of": of}]}, "run.yaml")


def test_a_missing_file_and_broken_yaml_are_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read"):
        read_run(tmp_path / "none.yaml")
    broken = tmp_path / "broken.yaml"
    broken.write_text("a: [", encoding="utf-8")
    with pytest.raises(ConfigError, match="no YAML"):
        read_run(broken)
    broken.write_text("just words", encoding="utf-8")
    with pytest.raises(ConfigError, match="holds no keys"):
        read_run(broken)


def test_a_resolved_config_reads_back_as_itself() -> None:
    stages = [{"kind": "perturb", "noise": 0.5}, {"kind": "perturb", "noise": 0.6, "flat": {"mass": 0.8}}]
    config = parse_config(RunConfig, PLAIN | {"stages": stages}, "run.yaml")
    assert RunConfig.model_validate_json(config.model_dump_json()) == config
    assert all(isinstance(stage, PerturbStage) for stage in config.stages)


def test_every_recipe_of_the_package_is_a_valid_run_file() -> None:
    recipes = sorted((Path(__file__).parents[2] / "trainer" / "recipe").glob("*.yaml"))
    assert recipes
    for path in recipes:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        parse_config(PretrainConfig if path.name.startswith("pretrain") else RunConfig, content, path.name)


def test_every_field_of_a_run_is_described() -> None:
    schema = RunConfig.model_json_schema()
    for name, model in schema["$defs"].items():
        for field, said in model["properties"].items():
            if field not in ("kind", "losses"):
                assert "description" in said or "$ref" in str(said), f"{name}.{field}"
