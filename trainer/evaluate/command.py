"""The commands of the gate: `evaluate` one core. Registered in `trainer/command.py`; exits with 1 when a gate fails."""

import json
import sys
from contextlib import ExitStack
from pathlib import Path

import click

_PATH = click.Path(path_type=Path, exists=True)


@click.command()
@click.argument("core", type=click.Path(path_type=Path, exists=True, file_okay=False), envvar="METABOLISM_CORE")
@click.option(
    "--base",
    required=True,
    envvar="METABOLISM_BASE",
    help="The base that the core was made of: a folder, or a name on the hub.",
)
@click.option(
    "--facts",
    "facts",
    type=_PATH,
    multiple=True,
    required=True,
    envvar="METABOLISM_FACTS",
    help="The removed facts, as NDJSON, or a folder of such files; may be repeated.",
)
@click.option("--control", envvar="METABOLISM_CONTROL", help="A model of the same making that never knew the facts.")
@click.option(
    "--kept",
    type=_PATH,
    multiple=True,
    envvar="METABOLISM_KEPT",
    help="Facts that were not to be removed, for locality.",
)
@click.option(
    "--phrasings",
    type=_PATH,
    multiple=True,
    envvar="METABOLISM_PHRASINGS",
    help="Wording of relations, as in the run file.",
)
@click.option(
    "--held-out",
    type=float,
    default=0.2,
    show_default=True,
    envvar="METABOLISM_HELD_OUT",
    help="Share of held-out wordings, as in the run file.",
)
@click.option(
    "--names", type=int, default=0, envvar="METABOLISM_NAMES", help="Bound on invented names, as in the run file."
)
@click.option(
    "--profile",
    "profile_name",
    type=click.Choice(["quick", "full", "small", "test"]),
    default="quick",
    show_default=True,
    envvar="METABOLISM_PROFILE",
    help="quick: minutes on a CPU; full: minutes on a GPU; small: for models of a few million weights.",
)
@click.option(
    "--attacks",
    default="ABCDE",
    show_default=True,
    envvar="METABOLISM_ATTACKS",
    help="Letters of the attacks to make; the report lists the others as not tested.",
)
@click.option(
    "--task",
    "tasks",
    multiple=True,
    envvar="METABOLISM_TASKS",
    help="A task of lm-evaluation-harness, such as gsm8k; needs the extra eval.",
)
@click.option("--seed", type=int, default=11, show_default=True, envvar="METABOLISM_SEED", help="Of the questions.")
@click.option("--device", default="cpu", show_default=True, envvar="METABOLISM_DEVICE", help="cpu or cuda.")
@click.option(
    "--workers",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    envvar="METABOLISM_WORKERS",
    help="Processes that attack side by side, each with its own models; 0: as many as cores for a small model, else 1.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    envvar="METABOLISM_OUT",
    help="Folder of report.json, report.html, and report.md with its plots.",
)
@click.option(
    "--json", "as_json", is_flag=True, envvar="METABOLISM_JSON", help="Print the summary as one JSON document."
)
def evaluate(
    core: Path, base: str, facts: tuple[Path, ...], control: str | None, kept: tuple[Path, ...],
    phrasings: tuple[Path, ...], held_out: float, names: int, profile_name: str, attacks: str,
    tasks: tuple[str, ...], seed: int, device: str, workers: int, out: Path, as_json: bool,
) -> None:  # fmt: skip
    """Attack CORE, test its skills, and say whether it passes the gate."""
    from trainer.evaluate.workers import load_ahead

    if device == "cpu" and workers != 1:
        load_ahead("trainer.evaluate.run")
    from trainer.command import reporting
    from trainer.evaluate.page import draw, write_card, write_page
    from trainer.evaluate.profile import PROFILES
    from trainer.evaluate.report import summarize, write_report, write_summary
    from trainer.evaluate.run import Request, evaluate
    from trainer.evaluate.wording import headline
    from trainer.files import claimed, writing

    request = Request(
        core, base, files_of(facts), PROFILES[profile_name], control, files_of(kept), phrasings, held_out, names, seed,
        device, attacks, tasks, workers,
    )  # fmt: skip
    with reporting("nothing was written"), ExitStack() as work:
        with writing(out, lambda: "run it again, or choose another folder by --out; nothing was measured yet"):
            work.enter_context(claimed(out))
        report = evaluate(request)
    if as_json:
        click.echo(json.dumps(summarize(report)))
    else:
        for verdict in report.verdicts:
            mark = "no power" if verdict.vacuous else "within  " if verdict.passed else "OUTSIDE "
            click.echo(f"{mark} {verdict.measure:20} {verdict.reason}")
        click.echo(f"{'PASSED' if report.passed else 'FAILED'}: {headline(report)}")
    left = "the figures above are what is left of it"
    with (
        reporting(f"the report is not written, or not all of it; {left}"),
        writing(out, lambda: f"evaluate again; {left}"),
    ):
        drawn = draw(report)
        written = [write_report(report, out), write_page(report, out, core, drawn)]
        written.append(write_card(report, out, core, drawn))
        if write_summary(report, core):
            written.append(core / "core.json")
    click.echo(f"wrote {', '.join(map(str, written))}", err=True)
    sys.exit(0 if report.passed else 1)


def files_of(paths: tuple[Path, ...]) -> tuple[Path, ...]:
    """The files, and those that lie in the folders."""
    return tuple(file for path in paths for file in (sorted(path.glob("*.ndjson")) if path.is_dir() else [path]))
