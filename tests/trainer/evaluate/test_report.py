import json
import re
from pathlib import Path
from random import Random

import pytest
from pydantic import ValidationError

from trainer.artifact import CoreRecord, now, versions
from trainer.errors import ArtifactError
from trainer.evaluate.gate import judge
from trainer.evaluate.measure import MEASURES
from trainer.evaluate.outcome import Curve, Ledger, Outcomes, Role
from trainer.evaluate.page import draw, render_page, write_card, write_page
from trainer.evaluate.profile import QUICK_PROFILE
from trainer.evaluate.report import (
    Report,
    Subject,
    figures_of,
    judgement_of,
    line_of,
    read_report,
    summarize,
    write_report,
    write_summary,
)
from trainer.evaluate.threshold import QUICK
from trainer.evaluate.wording import headline, untested
from trainer.figure import draw_figures, keep_figure


def make_ledger(core_share: float) -> Ledger:
    """Every measure for every role, the core's own at `core_share` where it should be low."""
    rng, ledger = Random(0), Ledger()
    for measure in MEASURES.values():
        for role, share in ((Role.CORE, core_share), (Role.BASE, 0.9), (Role.CONTROL, 0.1)):
            kept = measure.name[0] == "D" or measure.rule == "at least"
            odds = 0.95 if kept and role is not Role.CONTROL else share
            ledger.add(measure.name, role, (rng.random() < odds for _ in range(80)))
    for role in (Role.CORE, Role.CONTROL):
        ledger.curves.append(
            Curve("C.relearn", role, "", (0, 10, 20), (0.0, 0.3, 0.6), (0, 0.2, 0.5), (0.1, 0.4, 0.7), 80)
        )
        ledger.curves.append(
            Curve("B.probe_linear", role, "sport, end of the prompt", (0, 1, 2), (0.1, 0.2, 0.2), n=80)
        )
    return ledger


def make_report(core_share: float = 0.1) -> Report:
    ledger = make_ledger(core_share)
    verdicts = judge(ledger, QUICK)
    return Report(
        protocol_version=1, profile="quick", attacks="ABCDE", created=now(), duration_s=1.0,
        subjects=(Subject(role=Role.CORE, name="core", parameters=7, sha256="0" * 64),), facts=(), seeds=(11,),
        figures=figures_of(ledger), curves=tuple(map(line_of, ledger.curves)),
        verdicts=tuple(map(judgement_of, verdicts)), passed=all(verdict.passed for verdict in verdicts),
        not_tested=untested(ledger, verdicts, QUICK_PROFILE, has_control=True), versions={"torch": "2"},
    )  # fmt: skip


def test_a_report_is_the_same_after_writing_and_reading(tmp_path: Path):
    report = make_report()
    assert read_report(write_report(report, tmp_path)) == report


def test_a_report_with_an_unknown_key_or_version_is_refused(tmp_path: Path):
    path = write_report(make_report(), tmp_path)
    content = json.loads(path.read_text())
    for change in ({"extra": 1}, {"report_version": 2}):
        path.write_text(json.dumps(content | change))
        with pytest.raises(ArtifactError, match="no report of version 1"):
            read_report(path)
    with pytest.raises(ArtifactError, match="cannot read"):
        read_report(tmp_path / "none.json")


def test_a_figure_without_items_or_seeds_cannot_be_written():
    figure = make_report().figures[0]
    for change in ({"n": 0}, {"seeds": ()}):
        with pytest.raises(ValidationError):
            type(figure).model_validate(figure.model_dump() | change)


def test_every_figure_has_its_interval_around_it():
    for figure in make_report().figures:
        assert figure.low <= figure.value <= figure.high
        assert figure.n == 80


def test_the_summary_goes_into_the_record_of_the_core(tmp_path: Path):
    report = make_report(0.8)
    assert not write_summary(report, tmp_path)
    record = CoreRecord(name="core", created=now(), config={}, versions=versions())
    (tmp_path / "core.json").write_text(record.model_dump_json())
    assert write_summary(report, tmp_path)
    written = CoreRecord.model_validate_json((tmp_path / "core.json").read_bytes())
    assert written.report == json.loads(json.dumps(summarize(report)))
    assert written.report["passed"] is False
    assert "A.recall" in written.report["failed"]


def test_the_page_needs_nothing_else_and_shows_every_measure(tmp_path: Path):
    report = make_report()
    page = write_page(report, tmp_path).read_text()
    drawn = draw(report)
    assert write_page(report, tmp_path, drawn=drawn).read_text() == page
    assert write_card(report, tmp_path, drawn=drawn).read_text() == write_card(report, tmp_path).read_text()
    assert "src=" not in page
    assert "<link" not in page
    assert "@import" not in page
    for measure in MEASURES.values():
        assert measure.title in page.replace("&#39;", "'")
    assert page.count("<svg") >= 8
    for line in report.not_tested:
        assert line.split(":")[0] in page.replace("&#39;", "'")


def test_the_page_quotes_what_it_is_told(tmp_path: Path):
    report = make_report()
    subject = report.subjects[0].model_copy(update={"name": "<script>alert(1)</script>"})
    assert "<script>" not in render_page(report.model_copy(update={"subjects": (subject,)}))


def test_the_card_shows_every_measure_and_each_plot_it_names_lies_beside_it(tmp_path: Path):
    report = make_report(0.8)
    text = write_card(report, tmp_path).read_text()
    assert text.startswith("**Failed.**")
    assert all(f"| {measure.title} |" in text for measure in MEASURES.values())
    named = re.findall(r"\]\(([A-F]-\d\.svg)\)", text)
    assert sorted(named) == sorted(path.name for path in tmp_path.glob("*.svg"))
    assert len(named) >= 8
    for table in re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE):
        assert len({row.count("|") for row in table.splitlines()}) == 1, "each row has every cell"
    assert text.count("**outside**") == len(report.failed)
    assert all(f"- {line}\n" in text for line in report.not_tested)


def test_the_headline_names_where_it_fails_and_claims_no_more_than_was_judged():
    passed, failed = make_report(0.1), make_report(0.8)
    assert "judged measures" in headline(passed)
    assert "erased" not in headline(passed)
    assert "fails at A (gone in behaviour)" in headline(failed)


def test_an_attack_without_power_is_said_to_have_none_and_is_not_counted():
    ledger = make_ledger(0.1)
    for role in (Role.CORE, Role.BASE, Role.CONTROL):
        ledger.add("A.reversed", role, [0.0] * 80)
    verdicts = judge(ledger, QUICK)
    report = make_report(0.1).model_copy(
        update={
            "verdicts": tuple(map(judgement_of, verdicts)),
            "not_tested": untested(ledger, verdicts, QUICK_PROFILE, has_control=True),
        }
    )
    assert len(report.counted) == len(report.verdicts) - 1
    assert f"{len(report.counted)} judged measures" in headline(report)
    assert "1 more find nothing in the base either" in headline(report)
    assert any(line.startswith("A.reversed") and "no power" in line for line in report.not_tested)
    assert "no power" in render_page(report)
    assert summarize(report)["vacuous"] == ["A.reversed"]


def test_a_value_beyond_what_was_tried_is_shown_as_such(tmp_path: Path):
    ledger = make_ledger(0.1)
    ledger.enter(Outcomes("C.half_recovery", Role.CORE, (40.0,), bounds=(40.0, 40.0), beyond=True))
    report = make_report(0.1).model_copy(update={"figures": figures_of(ledger)})
    assert "| > 40 |" in write_card(report, tmp_path).read_text()
    assert "&gt; 40" in render_page(report)


def test_what_was_left_out_is_listed():
    ledger = Ledger()
    ledger.add("A.recall", Role.CORE, [0.0])
    lines = untested(ledger, (), QUICK_PROFILE, has_control=False)
    assert any(line.startswith("C.relearn ") for line in lines)
    assert any("no never-knew control" in line for line in lines)
    assert any("margins are wider" in line for line in lines)
    assert not any(line.startswith("A.recall ") for line in lines)


def test_the_figure_of_the_training_stands_in_page_and_card_where_the_core_has_one(tmp_path: Path):
    report, core = make_report(), tmp_path / "core"
    core.mkdir()
    for written in (write_page(report, tmp_path / "out", core), write_card(report, tmp_path / "out", core)):
        assert "What happened inside" not in written.read_text(), "the core has no figure"
    recalls = [1.0, 1.0, 1.0, 0.0, 0.0, 0.0]
    draw_figures([{"step": float(at), "stage": "s", "canary/recall": one} for at, one in enumerate(recalls)], tmp_path)
    keep_figure(tmp_path, core)
    page = write_page(report, tmp_path / "out", core).read_text()
    assert page.rindex("<h2>") == page.index("<h2>What happened inside, over training"), "it is the last section"
    assert "a phase transition" in page.rpartition("<figcaption>")[2]
    (source,) = re.findall(r'src="([^"]*)"', page)
    assert source.startswith("data:image/svg+xml;base64,"), "the page needs nothing else"
    card = write_card(report, tmp_path / "out", core).read_text()
    assert "](training.svg)" in card.rpartition("## What happened inside, over training")[2]
    assert (tmp_path / "out" / "training.svg").read_bytes() == (core / "training.svg").read_bytes()
    assert write_card(report, core, core).is_file(), "also where the report goes into the core's folder"


def test_a_figure_cannot_bring_a_script_into_the_page(tmp_path: Path):
    bad = "<svg><dc:description>&lt;script&gt;x</dc:description><script>alert(1)</script></svg>"
    (tmp_path / "training.svg").write_text(bad)
    assert "<script>" not in render_page(make_report(), tmp_path)
