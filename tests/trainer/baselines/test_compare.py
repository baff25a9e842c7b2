import json
from pathlib import Path
from typing import Any

import pytest

import trainer.baselines.compare
from tests.trainer.micro import NAMES
from trainer.baselines.compare import compare
from trainer.baselines.comparison import CompareConfig, Trial, read_comparison
from trainer.baselines.method import ByCurvature, ByStages, Untouched, changed, grid, worded
from trainer.baselines.table import render_all
from trainer.config import parse_config
from trainer.errors import BaseModelError, ConfigError
from trainer.evaluate.outcome import Ledger
from trainer.evaluate.question import Exam
from trainer.evaluate.report import read_report
from trainer.evaluate.run import Field, examine

TRAINER = Path(__file__).parents[3] / "trainer"
RECIPE = TRAINER / "baselines" / "recipe" / "methods.yaml"


def test_the_recipe_holds_every_rival():
    names = {method.name for method in read_comparison(RECIPE).methods}
    assert names >= {
        "base", "rag", "ascent", "unlikelihood", "npo", "rmu", "paper", "subnet", "kfac", "svd", "distil", "ours",
    }  # fmt: skip


@pytest.mark.parametrize(
    "path",
    [
        "baselines/recipe/methods.yaml",
        "baselines/recipe/leads.yaml",
        "baselines/recipe/leads-cpu.yaml",
        "baselines/recipe/methods-cpu.yaml",
        "recipe/small/compare.yaml",
        "recipe/small/leads.yaml",
        "recipe/small/spelled-leads.yaml",
    ],
)
def test_every_comparison_of_the_package_can_be_read(path: str):
    assert read_comparison(TRAINER / path).methods


def test_no_method_of_the_recipe_tries_more_than_the_budget():
    config = read_comparison(RECIPE)
    for method in config.methods:
        budget = method.trials or config.trials
        tried = grid(method, config.trials)
        assert 1 <= len(tried) <= budget
        assert len(tried) == budget or not method.search


@pytest.mark.parametrize("name", ["methods.yaml", "methods-cpu.yaml"])
def test_the_curvature_edit_tries_all_layers_and_the_last_ones_only(name: str):
    config = read_comparison(RECIPE.with_name(name))
    kfac = next(method for method in config.methods if method.name == "kfac")
    assert isinstance(kfac, ByCurvature)
    tried = grid(kfac, config.trials)
    assert {candidate.blocks for _, candidate in tried} == {None, (5, 6, 7)}
    assert {setting["share"] for setting, one in tried if one.blocks} == set(kfac.search["share"])


def test_a_setting_is_read_back_as_it_was_and_worded():
    setting = {"blocks": (5, 6, 7), "share": 0.95}
    trial = Trial(setting=setting, recall_left=0.0, skill_lost=0.0, seconds=1.0)
    assert Trial.model_validate_json(trial.model_dump_json()).setting == setting
    assert worded(setting) == "blocks 5 6 7, share 0.95"
    assert worded({"blocks": None, "share": 0.8}) == "blocks all, share 0.8"


def test_a_trial_that_was_written_before_layers_were_searched_can_be_read():
    old = '{"setting":{"training.learning_rate":0.0001,"ratio":3.0},"recall_left":0.0,"skill_lost":0.1,"seconds":9.0}'
    setting = Trial.model_validate_json(old).setting
    assert worded(setting) == "training.learning_rate 0.0001, ratio 3"


@pytest.mark.parametrize(
    ("search", "said"),
    [
        ({"share": [[5, 6]]}, "kfac with share 5 6"),
        ({"share": [7.0]}, "kfac with share 7"),
        ({"blocks": [0.5]}, "kfac with blocks 0.5"),
        ({"shares": [0.5]}, "kfac has no shares"),
        ({"share.0": [0.5]}, r"kfac has no share\.0"),
    ],
)
def test_a_search_that_does_not_fit_is_refused_before_any_work(
    micro, tmp_path: Path, search: dict[str, object], said: str
):
    method = {"name": "kfac", "title": "K-FAC", "kind": "curvature", "share": 0.9, "search": search}
    with pytest.raises(ConfigError, match=said):
        _with_a_core(micro, tmp_path, micro.mask, methods=[method])


def test_a_setting_reaches_into_a_stage():
    paper = next(method for method in read_comparison(RECIPE).methods if method.name == "paper")
    assert isinstance(paper, ByStages)
    other = changed(paper, {"stages.0.learning_rate": 0.5, "stages.0.steps": 7.0})
    assert isinstance(other, ByStages)
    assert other.stages[0].learning_rate == 0.5
    assert other.stages[0].steps == 7
    assert other.stages[0].losses == paper.stages[0].losses


def test_a_misspelt_key_is_named(tmp_path: Path):
    file = tmp_path / "compare.yaml"
    file.write_text(RECIPE.read_text().replace("trials: 3", "trails: 3"))
    with pytest.raises(ConfigError, match="trials"):
        read_comparison(file)


def test_a_comparison_makes_one_table_with_its_search(micro, tmp_path: Path):
    config = parse_config(
        CompareConfig,
        {
            "output": str(tmp_path / "out"), "base": {"model": str(micro.base)}, "control": str(micro.control),
            "facts": {"files": [str(micro.facts)], "phrasings": [str(micro.phrasings)]},
            "streams": {
                "fact": {"documents": 8}, "logic": {"documents": 8, "kinds": ["logic/boolean"]}, "names": NAMES,
                "workers": 0,
            },
            "compute": {"device": "cpu"}, "profile": "test", "attacks": "D", "trials": 2,
            "sequences": {
                "count": 4, "documents": 4, "steps": 80, "learning_rate": 3e-3, "methods": ["base", "kfac"]
            },
            "vision": {"epochs": 1, "shares": [1.0]},
            "methods": [
                {"name": "base", "title": "Base", "kind": "none"},
                {
                    "name": "kfac", "title": "K-FAC", "kind": "curvature", "share": 0.9, "batches": 1,
                    "search": {"blocks": [None, [1]], "share": [0.5, 1.0]}, "trials": 4,
                },
                {"name": "svd", "title": "SVD", "kind": "spectrum", "share": 0.9},
                {"name": "mask", "title": "Mask, made before", "kind": "core", "model": str(micro.mask)},
            ],
        },
        "compare.yaml",
    )  # fmt: skip
    comparison = compare(config)
    table = render_all(comparison)
    assert [row.name for row in comparison.rows] == ["control", "base", "kfac", "svd", "mask"]
    assert [trial.setting for trial in comparison.rows[2].trials] == [
        {"blocks": blocks, "share": share} for blocks in (None, (1,)) for share in (0.5, 1.0)
    ]
    for whole in comparison.rows[2].trials[1::2]:
        assert whole.skill_lost == 0  # all of the mass is kept: the model is the base
        assert whole.recall_left is not None
        assert whole.recall_left > 0.8
    assert "| K-FAC | blocks all, share 0.5 |" in table
    assert "| K-FAC | blocks 1, share 0.5 |" in table
    assert "Each method might try 2 settings; K-FAC might try 4." in table
    assert (comparison.rows[4].trials, comparison.rows[4].chosen) == ((), {})
    mask, base = (comparison.rows[place].report.figure("D.neutral") for place in (4, 1))
    assert mask is not None
    assert base is not None
    assert mask.value != base.value, "its own weights were examined"
    assert len(json.loads((tmp_path / "out" / "compare.json").read_text())["rows"]) == 5
    assert read_report(tmp_path / "out" / "kfac" / "report.json").figure("D.logic") is not None
    learned, half, same, last, again = comparison.sequences  # and not SVD, which was not named
    assert learned.title == "Base, strings learned"
    assert learned.tokens.value > 0.1, "something was learned by heart"
    edits = ["blocks all, share 0.5", "blocks all, share 1", "blocks 1, share 0.5", "blocks 1, share 1"]
    assert [one.title for one in (half, same, last, again)] == [f"K-FAC, {edit}" for edit in edits]
    for one in (same, again):
        assert (one.tokens, one.logic, one.reading) == (learned.tokens, learned.logic, learned.reading)
    assert half.tokens != learned.tokens
    (tmp_path / "out" / "strings.json").rename(tmp_path / "kept.json")
    alone = compare(config, ["strings"])
    assert (alone.rows, alone.vision) == ((), ())
    assert alone.sequences == comparison.sequences
    assert (tmp_path / "out" / "strings.json").read_text() == (tmp_path / "kept.json").read_text()
    assert {(row.edit, row.share) for row in comparison.vision} == {("as trained", 1), ("K-FAC", 1), ("SVD", 1)}
    assert "## Memorized strings" in table
    assert "## Wrong labels" in table
    assert isinstance(config.methods[0], Untouched)
    assert isinstance(config.methods[1], ByCurvature)


def _with_a_core(micro, folder: Path, core: Path, **settings: object) -> CompareConfig:
    content = {
        "output": str(folder / "out"), "base": {"model": str(micro.base)},
        "facts": {"files": [str(micro.facts)], "phrasings": [str(micro.phrasings)], "known_only": False},
        "streams": {"fact": {"documents": 8}, "logic": {"documents": 8}, "names": NAMES, "workers": 0},
        "compute": {"device": "cpu"}, "profile": "test",
        "methods": [{"name": "made", "title": "Made", "kind": "core", "model": str(core)}],
    }  # fmt: skip
    return parse_config(CompareConfig, content | settings, "compare.yaml")


def test_a_core_that_was_not_made_from_the_base_is_refused_before_any_work(micro, raw_base: Path, tmp_path: Path):
    with pytest.raises(BaseModelError, match=r"made: .* has other tokens than the base"):
        compare(_with_a_core(micro, tmp_path, raw_base / "base"))
    assert not (tmp_path / "out" / "made").exists()


@pytest.mark.parametrize("name", ["made", "misspelt"])
def test_only_a_method_that_is_applied_can_take_out_more(micro, tmp_path: Path, name: str):
    with pytest.raises(ConfigError, match=f"not a made core, and {name} is none"):
        _with_a_core(micro, tmp_path, micro.mask, life={"method": name})


@pytest.mark.parametrize(
    ("name", "reason"), [("made", "cannot forget strings"), ("misspelt", "is no method of this comparison")]
)
def test_only_a_method_that_can_forget_strings_is_shown_them(micro, tmp_path: Path, name: str, reason: str):
    methods = [
        {"name": "made", "title": "Made", "kind": "core", "model": str(micro.mask)},
        {"name": "svd", "title": "SVD", "kind": "spectrum", "share": 0.9},
    ]
    with pytest.raises(ConfigError, match=rf"sequences\.methods: {name} {reason}.*; these can: svd"):
        _with_a_core(micro, tmp_path, micro.mask, methods=methods, sequences={"methods": ["svd", name]})


@pytest.mark.parametrize("name", ["misspelt", "strings", "labels"])
def test_what_is_not_there_cannot_be_asked_for_alone(micro, tmp_path: Path, name: str):
    with pytest.raises(ConfigError, match=rf"nothing called {name} to compare; there are: made$"):
        compare(_with_a_core(micro, tmp_path, micro.mask), [name])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("stream", ["neutral", "drill"])
def test_a_method_on_a_stream_that_is_not_there_is_refused_before_any_work(micro, tmp_path: Path, stream: str):
    stage = {"kind": "regenerate", "steps": 1, "losses": {"anchor": {"streams": [stream]}}}
    with pytest.raises(ConfigError, match=rf"streams\.{stream}"):
        _with_a_core(
            micro, tmp_path, micro.mask,
            methods=[{"name": "ours", "title": "Ours", "kind": "stages", "stages": [stage]}],
        )  # fmt: skip


class _Later(CompareConfig):
    """The settings of a later release."""

    an_option: int = 3


def test_a_comparison_that_is_taken_up_again_examines_only_what_is_missing(
    micro, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    methods = [
        {"name": "base", "title": "Base", "kind": "none"},
        {"name": "made", "title": "Made", "kind": "core", "model": str(micro.mask)},
        {"name": "mask", "title": "The same once more", "kind": "core", "model": str(micro.mask)},
    ]
    config = _with_a_core(micro, tmp_path, micro.mask, attacks="D", methods=methods)
    first = compare(config)
    (tmp_path / "out" / "made" / "row.json").unlink()
    (tmp_path / "out" / "mask" / "row.json").write_text("half a row")
    examined = []

    def examine_and_tell(exam: Exam, models: Field, *given: Any, **named: Any) -> Ledger:
        examined.append(models.core.name)
        return examine(exam, models, *given, **named)

    monkeypatch.setattr(trainer.baselines.compare, "examine", examine_and_tell)
    again = compare(config)
    assert examined == ["made", "mask"]
    for before, after in zip(first.rows, again.rows, strict=True):
        assert (before.report.figures, before.report.verdicts) == (after.report.figures, after.report.verdicts)
    compare(_Later.model_validate(config.model_dump()))
    assert examined == ["made", "mask"], "an option that is new in the code makes no row anew"
    compare(config.model_copy(update={"seed": 12}))
    assert examined == ["made", "mask", "base", "made", "mask"], "another exam is another comparison"
