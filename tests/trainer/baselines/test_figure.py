import re
from itertools import pairwise
from pathlib import Path

import pytest

from tests.trainer.evaluate.test_report import make_report
from trainer.baselines.comparison import Comparison, Row
from trainer.baselines.figure import draw_comparison, spread
from trainer.evaluate.report import Report

FONT_POINTS = 7


def row(title: str, report: Report) -> Row:
    return Row(name=title.lower(), title=title, trials=(), chosen={}, report=report)


def heights(svg: str, titles: list[str]) -> list[float]:
    """How far down each title stands, in the figure's points."""
    found = [re.search(rf"<text[^>]*?y=\"([\d.]+)\"[^>]*>{title}</text>", svg) for title in titles]
    assert all(found), "a title is missing"
    return [float(one[1]) for one in found if one]


def test_points_that_lie_on_each_other_keep_their_titles_apart(tmp_path: Path):
    titles = ["First", "Second", "Third", "Elsewhere"]
    rows = [row(title, make_report(0.8 if title == "Elsewhere" else 0.1)) for title in titles]
    path = draw_comparison(Comparison(rows=tuple(rows), trials=1), tmp_path)
    svg = path.read_text()
    apart = [upper - lower for lower, upper in pairwise(sorted(heights(svg, titles)))]
    assert min(apart) > FONT_POINTS
    assert draw_comparison(Comparison(rows=tuple(rows), trials=1), tmp_path).read_text() == svg


def test_a_method_that_was_not_relearned_is_left_out(tmp_path: Path):
    report = make_report()
    asked = report.model_copy(update={"figures": tuple(it for it in report.figures if it.attack != "C")})
    svg = draw_comparison(Comparison(rows=(row("Asked", asked), row("All", report)), trials=1), tmp_path).read_text()
    assert ">All</text>" in svg
    assert ">Asked</text>" not in svg


def test_a_method_whose_skills_were_not_measured_is_named_beside_its_curve(tmp_path: Path):
    report = make_report()
    relearned = report.model_copy(update={"figures": tuple(it for it in report.figures if it.attack != "D")})
    svg = draw_comparison(Comparison(rows=(row("Relearned", relearned),), trials=1), tmp_path).read_text()
    assert ">Relearned</text>" in svg


@pytest.mark.parametrize(
    ("heights", "placed"),
    [
        ([], []),
        ([0.3], [0.3]),
        ([0.1, 0.5], [0.1, 0.5]),
        ([0.5, 0.5, 0.5], [0.4, 0.5, 0.6]),  # about where they were
        ([0.0, 0.02, 0.9], [0.0, 0.1, 0.9]),  # not below 0
        ([0.2, 0.98, 1.0], [0.2, 0.9, 1.0]),  # not above the top
        ([0.5] * 12, [-0.1, 0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]),  # more than there is room for
    ],
)
def test_titles_stand_as_near_to_their_points_as_their_height_lets_them(heights: list[float], placed: list[float]):
    assert spread(heights, 0.1, 1.0) == pytest.approx(placed)
