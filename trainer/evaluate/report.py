"""The report as a file: `report.json`, checked against its schema when it is written and when it is read.

Pydantic stands here because a report crosses the edge of the program: the service shows its summary, CI reads its
verdict, other people's scripts read its figures.
"""

from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from trainer.artifact import RECORD
from trainer.artifact import write_report as write_core_report
from trainer.errors import ArtifactError
from trainer.evaluate.gate import Verdict
from trainer.evaluate.measure import MEASURES
from trainer.evaluate.outcome import Curve, Ledger, Outcomes, Role
from trainer.evaluate.profile import ProfileName
from trainer.evaluate.statistic import interval
from trainer.files import write_whole

REPORT_VERSION: Literal[1] = 1
REPORT_NAME = "report.json"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Subject(_Part):
    """A model that was examined."""

    role: Role
    name: str = Field(description="the folder's or hub's name")
    parameters: int = Field(gt=0)
    sha256: str = Field(
        description="digest over all weights, in the order of their names", min_length=64, max_length=64
    )


class Figure(_Part):
    """A measure of one role, with its interval and the seeds of its items."""

    measure: str
    attack: str = Field(pattern="^[A-F]$")
    title: str
    role: Role
    unit: str
    value: float
    low: float = Field(description="lower bound of the 95 % interval")
    high: float = Field(description="upper bound of the 95 % interval")
    n: int = Field(gt=0)
    seeds: tuple[int, ...] = Field(min_length=1)
    note: str = ""
    beyond: bool = Field(default=False, description="the value only bounds from below: it lies beyond what was tried")


class Line(_Part):
    """A curve: a measure over steps, layers or subsets."""

    measure: str
    role: Role
    label: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    n: int = Field(ge=0)


class Judgement(_Part):
    """A verdict: the core against its reference, or against a bare limit."""

    measure: str
    reference: Role | None
    value: float
    reference_value: float | None
    difference: float | None
    low: float | None = Field(description="lower bound of the difference's 95 % interval")
    high: float | None
    p_value: float | None
    test: str | None
    limit: float
    passed: bool
    conclusive: bool = Field(description="whether the whole interval lies on the side of the verdict")
    vacuous: bool = Field(
        default=False, description="the attack finds nothing in the base either, so passing it shows nothing"
    )
    reason: str


class FactsUsed(_Part):
    """Which facts were asked for."""

    file: str
    sha256: str
    rows: int = Field(ge=0)


class Report(_Part):
    """All that an evaluation measured, and what it did not."""

    report_version: Literal[1] = REPORT_VERSION
    protocol_version: int
    profile: ProfileName
    attacks: str = Field(pattern="^[A-F]+$", description="the letters that were asked for")
    created: datetime
    duration_s: float = Field(ge=0)
    subjects: tuple[Subject, ...]
    facts: tuple[FactsUsed, ...]
    seeds: tuple[int, ...]
    figures: tuple[Figure, ...]
    curves: tuple[Line, ...]
    verdicts: tuple[Judgement, ...]
    passed: bool
    not_tested: tuple[str, ...]
    versions: dict[str, str]

    @property
    def failed(self) -> tuple[Judgement, ...]:
        """The verdicts that did not pass."""
        return tuple(verdict for verdict in self.verdicts if not verdict.passed)

    @property
    def counted(self) -> tuple[Judgement, ...]:
        """The verdicts that say something: those whose attack finds the facts in the base."""
        return tuple(verdict for verdict in self.verdicts if not verdict.vacuous)

    def figure(self, measure: str, role: Role = Role.CORE) -> Figure | None:
        """One figure."""
        return next((one for one in self.figures if one.measure == measure and one.role is role), None)


def figures_of(ledger: Ledger) -> tuple[Figure, ...]:
    """Every outcome as a figure with its interval, in the order of the measures."""
    order = {name: place for place, name in enumerate(MEASURES)}
    outcomes = sorted(ledger.outcomes.values(), key=lambda one: (order[one.measure], list(Role).index(one.role)))
    return tuple(_figure(one) for one in outcomes)


def _figure(outcomes: Outcomes) -> Figure:
    measure, bounds = MEASURES[outcomes.measure], interval(outcomes.items, groups=outcomes.groups)
    low, high = outcomes.bounds or (bounds.low, bounds.high)
    return Figure(
        measure=measure.name, attack=measure.attack.value, title=measure.title, role=outcomes.role, unit=measure.unit,
        value=bounds.value, low=low, high=high, n=len(outcomes.items), seeds=outcomes.seeds,
        note=outcomes.note, beyond=outcomes.beyond,
    )  # fmt: skip


def line_of(curve: Curve) -> Line:
    """A curve for the file."""
    return Line(
        measure=curve.measure, role=curve.role, label=curve.label, x=curve.x, y=curve.y, low=curve.low, high=curve.high,
        n=curve.n,
    )  # fmt: skip


def judgement_of(verdict: Verdict) -> Judgement:
    """A verdict for the file."""
    gap = verdict.difference
    return Judgement(
        measure=verdict.measure, reference=verdict.reference, value=verdict.value,
        reference_value=verdict.reference_value, difference=gap.value if gap else None,
        low=gap.low if gap else None, high=gap.high if gap else None,
        p_value=gap.p_value if gap else None, test=gap.test if gap else None,
        limit=verdict.limit, passed=verdict.passed, conclusive=verdict.conclusive, vacuous=verdict.vacuous,
        reason=verdict.reason,
    )  # fmt: skip


def write_report(report: Report, folder: Path) -> Path:
    """Write `report.json`, having checked that what is written can be read back."""
    text = report.model_dump_json(indent=1) + "\n"
    Report.model_validate_json(text)
    return write_whole(folder / REPORT_NAME, text)


def read_report(path: Path) -> Report:
    """Read a report.

    Raises:
        ArtifactError: the file is missing or is no report of this version.
    """
    try:
        return Report.model_validate_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ArtifactError(f"cannot read the report {path}: {error.strerror}") from error
    except ValidationError as error:
        raise ArtifactError(f"{path} is no report of version {REPORT_VERSION}: {error}") from error


def summarize(report: Report) -> dict[str, object]:
    """What goes into `core.json`: the verdict, the gates that failed, and the headline figures with n and interval."""
    headlines = ("A.recall", "B.probe_linear", "C.relearn", "D.reading", "E.full")
    shown = {}
    for name in headlines:
        figure = report.figure(name)
        if figure is not None:
            shown[name] = {"value": figure.value, "low": figure.low, "high": figure.high, "n": figure.n}
    return {
        "passed": report.passed,
        "profile": report.profile,
        "attacks": report.attacks,
        "created": report.created.isoformat(),
        "failed": [verdict.measure for verdict in report.failed],
        "vacuous": [verdict.measure for verdict in report.verdicts if verdict.vacuous],
        "figures": shown,
        "not_tested": list(report.not_tested),
    }


def write_summary(report: Report, core: Path) -> bool:
    """Enter the summary into the core's record; False where the folder has none.

    Raises:
        ArtifactError: the record is malformed or cannot be written.
    """
    if not (core / RECORD).is_file():
        return False
    write_core_report(core, summarize(report))
    return True


def now() -> datetime:
    """The moment of a report."""
    return datetime.now(UTC).replace(microsecond=0)
