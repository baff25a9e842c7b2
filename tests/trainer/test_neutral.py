"""Text to hold on to: it states no target fact, comes from the hub once, and the core's record says what it was."""

import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from click.testing import CliRunner

from tests.trainer.conftest import make_config
from tests.trainer.tiny import tiny_facts
from trainer.artifact import DataRecord, read_record
from trainer.command import check
from trainer.config import NeutralStreamConfig
from trainer.errors import StreamError
from trainer.fact import Target
from trainer.run import start_run
from trainer.sources import neutral_files
from trainer.streams.statement import Statements

Settings = dict[str, object]
STAGE = {"kind": "metabolize", "steps": 1, "losses": {"anchor": {"streams": ["neutral"]}}}
FREE = [f"A line about nothing, number {number}." for number in range(6)]


def write_lines(path: Path, texts: list[str]) -> Path:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return path


def settings_with(raw_run: Settings, neutral: Settings) -> Settings:
    streams = dict(raw_run["streams"]) | {"neutral": {"documents": 2, "row_tokens": 64} | neutral}  # type: ignore[call-overload]
    return raw_run | {"streams": streams, "stages": [STAGE]}


def stating() -> list[str]:
    """Every tiny fact, said in three ways."""
    ways = ("The {0.relation} of {0.subject} is {0.value}.", "{0.value}? Ask {0.subject}!", "{0.subject}, ({0.value})")
    return [ways[number % 3].format(fact).upper() for number, fact in enumerate(tiny_facts())]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Nairobi is the capital of Kenya.", True),
        ("In kenya's NAIROBI", True),
        ("Kenya lies in Africa, Nairobian tales", False),
        ("Nairobi alone", False),
        ("Kenyans love Nairobi", False),
        ("Cape-Verde pays with the escudo", True),
        ("Cape and Verde pay with the escudo", False),
        ("北京是中国的首都", True),
        ("中国很大", False),
        ("Ireland: 5 €", True),
    ],
)
def test_a_text_states_a_fact_where_it_holds_the_words_of_subject_and_value(text: str, found: bool) -> None:
    pairs = [("Kenya", "Nairobi"), ("Cape Verde", "escudo"), ("中国", "北京"), ("Ireland", "€")]
    assert Statements(Target(subject, "r", value, "m") for subject, value in pairs).are_in(text) is found


def test_lines_that_state_a_target_are_left_out_and_counted(raw_run: Settings, tmp_path: Path) -> None:
    texts = [line for pair in zip(FREE, stating(), strict=False) for line in pair] + stating()
    path = write_lines(tmp_path / "mine.jsonl", texts)
    settings = settings_with(raw_run, {"files": [str(path)]})
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    said = f"neutral text: 206 of {len(texts)} lines state a target fact and are left out"
    assert said in CliRunner().invoke(check, [str(tmp_path / "run.yaml")]).stdout
    core = start_run(make_config(settings)).core
    assert core is not None
    phrasings = Path(raw_run["facts"]["phrasings"][0])  # type: ignore[index]
    facts = Path(raw_run["facts"]["files"][0])  # type: ignore[index]
    wordings = len(phrasings.read_text(encoding="utf-8").splitlines())
    digests = [hashlib.sha256(one.read_bytes()).hexdigest() for one in (facts, phrasings, path)]
    assert read_record(core).data == (
        DataRecord(name="people.ndjson", sha256=digests[0], rows=200),
        DataRecord(kind="phrasings", name="phrasings.yaml", sha256=digests[1], rows=wordings),
        DataRecord(kind="neutral", name="mine.jsonl", sha256=digests[2], rows=6, left_out=206),
    )  # fmt: skip


def test_a_text_that_states_nothing_but_targets_is_refused(raw_run: Settings, tmp_path: Path) -> None:
    path = write_lines(tmp_path / "mine.jsonl", stating())
    with pytest.raises(StreamError, match="every line of the neutral text states a target fact"):
        start_run(make_config(settings_with(raw_run, {"files": [str(path)]})))


class Hub:
    """Stands in for the package datasets: each dataset is six lines that name it."""

    def __init__(self) -> None:
        self.loaded: list[tuple[str, str | None, str]] = []

    def load_dataset(self, name: str, subset: str | None, *, split: str, streaming: bool) -> SimpleNamespace:
        assert streaming
        self.loaded.append((name, subset, split))
        rows = [{"text": f"{name} {subset} {split} {line}", "other": line} for line in FREE]
        return SimpleNamespace(take=lambda most: rows[:most])


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    found = Hub()
    monkeypatch.setitem(sys.modules, "datasets", found)
    return found


def test_text_of_the_hub_is_written_down_once_and_anew_for_whatever_else_is_asked(hub: Hub, tmp_path: Path) -> None:
    one = NeutralStreamConfig(dataset="one")
    (path,) = neutral_files(one, tmp_path)
    assert neutral_files(one, tmp_path) == (path,)
    assert hub.loaded == [("one", None, "train")]
    changes = [{"dataset": "two"}, {"subset": "b"}, {"split": "test"}, {"field": "other"}, {"most": 2}]
    texts = {neutral_files(one.model_copy(update=change), tmp_path)[0].read_text() for change in changes}
    assert len(texts | {path.read_text()}) == 6
    assert len(list(tmp_path.iterdir())) == 6, "nothing else is left"
    with pytest.raises(StreamError, match=r"no column 'txt'; set streams\.neutral\.field"):
        neutral_files(one.model_copy(update={"field": "txt"}), tmp_path)


def test_check_leaves_no_text_in_the_folder_of_the_run_and_train_does(
    hub: Hub, raw_run: Settings, tmp_path: Path
) -> None:
    settings = settings_with(raw_run, {"dataset": "one"})
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    done = CliRunner().invoke(check, [str(tmp_path / "run.yaml")])
    assert done.exit_code == 0, done.output
    assert not (tmp_path / "run").exists()
    core = start_run(make_config(settings)).core
    assert core is not None
    (text,) = (tmp_path / "run").glob("neutral-*.jsonl")
    assert "one None train" in text.read_text(encoding="utf-8")
    kept = read_record(core).data[-1]
    assert (kept.name, kept.sha256) == (text.name, hashlib.sha256(text.read_bytes()).hexdigest())


def test_without_the_package_it_is_said_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(StreamError, match="pip install datasets"):
        neutral_files(NeutralStreamConfig(dataset="one"), tmp_path)
