"""The figure of a run: where recall broke, what it says, and that it goes with the core."""

from pathlib import Path

from trainer.figure import caption_of, draw_figures, keep_figure

Row = dict[str, float | str | None]


def run_of(recalls: list[float], **more: float) -> list[Row]:
    looks: list[Row] = [
        {"step": 10.0 * place, "stage": f"metabolize {place // 4}", "canary/recall": recall, "canary/logic": 0.9,
         "canary/lookup": 1 - recall, "canary/steps": 1.0, **more}
        for place, recall in enumerate(recalls)
    ]  # fmt: skip
    return looks


def words(svg: Path) -> str:
    return svg.read_text(encoding="utf-8")


def test_the_caption_gives_the_verdict_and_where_recall_broke(tmp_path: Path) -> None:
    draw_figures(run_of([1, 1, 1, 1, 0, 0, 0, 0]), tmp_path)
    said = caption_of(tmp_path / "inside.svg")
    assert "from 1.00 to 0.00 at step 35, in «metabolize 1»: a phase transition, 0 steps wide" in said
    draw_figures(run_of([1 - place / 19 for place in range(20)]), tmp_path)
    assert ": a slope, " in caption_of(tmp_path / "inside.svg")
    draw_figures(run_of([0.0, 0.0]), tmp_path)
    assert "no change point" in caption_of(tmp_path / "inside.svg")


def test_a_perturbation_that_takes_recall_away_is_said_to_take_no_step(tmp_path: Path) -> None:
    rows = run_of([0.6, 0, 0, 0, 0, 0])
    rows[1] |= {"step": 0.0, "stage": "perturb 0"}
    draw_figures(rows, tmp_path)
    assert "before a step was taken, by «perturb 0»" in caption_of(tmp_path / "inside.svg")


def test_the_shift_to_lookups_has_a_panel_of_its_own_with_or_without_direct_answers(tmp_path: Path) -> None:
    draw_figures(run_of([1, 1, 1, 0, 0]), tmp_path)
    assert {"recalled directly", "looked up"} <= labels(tmp_path / "inside.svg")
    rows = run_of([1, 1, 1, 0, 0], **{"canary/direct": 0.0, "canary/decoded": 0.5, "canary/chain": 1.0})
    draw_figures(rows, tmp_path)
    assert {"answered directly, and right", "looked up", "neither", "a fresh linear probe"} <= labels(
        tmp_path / "inside.svg"
    )


def labels(svg: Path) -> set[str]:
    """The texts of a figure, which matplotlib notes beside the outlines that it draws them by."""
    return {line.strip()[5:-4] for line in words(svg).splitlines() if line.strip().startswith("<!-- ")}


def test_the_figure_is_the_same_each_time_and_goes_with_the_core(tmp_path: Path) -> None:
    rows = run_of([1, 1, 0, 0])
    for folder in ("one", "two"):
        draw_figures(rows, tmp_path / folder)
    assert words(tmp_path / "one" / "inside.svg") == words(tmp_path / "two" / "inside.svg")
    (tmp_path / "core").mkdir()
    kept = keep_figure(tmp_path / "one", tmp_path / "core")
    assert kept == tmp_path / "core" / "training.svg"
    assert caption_of(kept)


def test_the_demo_core_carries_the_figure_of_its_run(demo_core: Path) -> None:
    assert "by «perturb 0»: a phase transition" in caption_of(demo_core / "training.svg")
