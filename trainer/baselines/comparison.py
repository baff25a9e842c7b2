"""A comparison as its file says it, and as the table that comes of it: data, with no model in it.

`compare.py` makes the one of the other; `table.py` and `figure.py` show it.
"""

from collections.abc import Sequence
from pathlib import Path

import yaml
from pydantic import Field, model_validator

from trainer.baselines.life import LifeConfig
from trainer.baselines.memorized import SequenceRow, SequencesConfig, VisionConfig, VisionRow, chosen_for_strings
from trainer.baselines.method import (
    Applied,
    ByCurvature,
    ByStages,
    BySubnet,
    Made,
    Method,
    Value,
    changed,
    grid,
    worded,
)
from trainer.config import (
    BaseConfig,
    ComputeConfig,
    FactsConfig,
    StreamsConfig,
    Strict,
    check_streams,
    parse_config,
)
from trainer.errors import ConfigError
from trainer.evaluate.profile import ProfileName
from trainer.evaluate.report import Report
from trainer.evaluate.run import ATTACKS

STRINGS, LABELS = "strings", "labels"
"""The tables beside that of the methods, as `only` names them."""
_EDITS = (ByCurvature, BySubnet)


class CompareConfig(Strict):
    """A comparison, as a YAML file says it."""

    output: Path = Field(description="folder of the table and of each method's report")
    seed: int = Field(default=11, description="of the exam; tuning uses another")
    base: BaseConfig
    control: str | None = Field(default=None, description="the never-knew control: the reference, and a row")
    facts: FactsConfig
    kept: tuple[Path, ...] = Field(default=(), description="facts that are not to be removed, for locality")
    streams: StreamsConfig = StreamsConfig()
    compute: ComputeConfig = ComputeConfig()
    profile: ProfileName = "quick"
    attacks: str = Field(default=ATTACKS, pattern="^[A-E]+$")
    trials: int = Field(default=3, ge=1, description="settings that each method may try, unless it says otherwise")
    methods: tuple[Method, ...] = Field(min_length=1)
    life: LifeConfig | None = Field(default=None, description="later removals, by one of the methods")
    sequences: SequencesConfig | None = Field(default=None, description="strings learned by heart, and their removal")
    vision: VisionConfig | None = Field(default=None, description="wrong labels, and the curvature edit")

    @model_validator(mode="after")
    def _lives(self) -> "CompareConfig":
        applied = [one.name for one in self.methods if not isinstance(one, Made)]
        if self.life is not None and self.life.method not in applied:
            raise ValueError(
                f"life.method takes out more facts: it names one that is applied here ({', '.join(applied)}), not a "
                f"made core, and {self.life.method} is none"
            )
        return self

    @model_validator(mode="after")
    def _settings_fit(self) -> "CompareConfig":
        for method in self.methods:
            grid(method, self.trials)
        return self

    @model_validator(mode="after")
    def _strings_are_forgotten(self) -> "CompareConfig":
        if self.sequences is not None:
            chosen_for_strings(self.sequences, self.methods)
        return self

    @model_validator(mode="after")
    def _streams_exist(self) -> "CompareConfig":
        for method in self.methods:
            if isinstance(method, ByStages):
                check_streams(method.stages, self.streams)
        return self


class Trial(Strict):
    """One setting that was tried."""

    setting: dict[str, Value]
    recall_left: float | None = Field(description="teacher-forced recall on the tuning exam; none where it diverged")
    skill_lost: float | None = Field(description="base minus method on reading and logic, not below 0")
    seconds: float


class Row(Strict):
    """One method: its search, and its report."""

    name: str
    title: str
    trials: tuple[Trial, ...]
    chosen: dict[str, Value]
    budget: int | None = Field(default=None, description="settings it was allowed, where not as many as the others")
    report: Report


class Comparison(Strict):
    """The whole table as data."""

    rows: tuple[Row, ...]
    sequences: tuple[SequenceRow, ...] = ()
    vision: tuple[VisionRow, ...] = ()
    trials: int
    tuning: str = "recall left + skill lost, on an exam of another seed; the smallest is chosen"


def read_comparison(path: Path) -> CompareConfig:
    """Read a comparison's file.

    Raises:
        ConfigError: the file is missing, is no YAML, or has a key or value that does not fit.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path.name} is no YAML: {error}") from error
    return parse_config(CompareConfig, content, path.name)


def asked_for(config: CompareConfig, only: Sequence[str]) -> list[Method]:
    """The methods whose rows are asked for, in the file's order."""
    names = [method.name for method in config.methods]
    tables = {STRINGS: config.sequences, LABELS: config.vision}
    there = [*names, *(name for name, settings in tables.items() if settings is not None)]
    for name in only:
        if name not in there:
            raise ConfigError(f"there is nothing called {name} to compare; there are: {', '.join(there)}")
    asked = set(only or names)
    if STRINGS in only and config.sequences is not None:
        trained = chosen_for_strings(config.sequences, config.methods)
        asked |= {method.name for method in trained if method.search and not isinstance(method, _EDITS)}
    return [method for method in config.methods if method.name in asked]


def for_strings(config: CompareConfig, strings: SequencesConfig, rows: Sequence[Row]) -> list[Applied]:
    """Every method as its search on the facts chose it; an edit, which costs no training, at each of its settings."""
    chosen = {row.name: row.chosen for row in rows}
    methods: list[Applied] = []
    for method in chosen_for_strings(strings, config.methods):
        if isinstance(method, _EDITS):
            for setting, candidate in grid(method, config.trials):
                title = ", ".join(filter(None, (method.title, worded(setting))))
                methods.append(candidate.model_copy(update={"title": title}))
        else:
            methods.append(changed(method, chosen.get(method.name, {})))
    return methods
