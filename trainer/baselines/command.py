"""The command `compare`: every method of a file in one table. Registered in `trainer/command.py`."""

from pathlib import Path

import click


@click.command()
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False), envvar="METABOLISM_COMPARISON")
@click.option(
    "--only",
    multiple=True,
    envvar="METABOLISM_ONLY",
    help="Only this method, by its name, or only the table of `strings` or of wrong `labels`; may be repeated.",
)
@click.option("--json", "as_json", is_flag=True, envvar="METABOLISM_JSON", help="Print the table as one JSON document.")
def compare(file: Path, only: tuple[str, ...], *, as_json: bool) -> None:
    """Tune, apply and examine the methods of FILE, and print one table."""
    from trainer.baselines.compare import compare
    from trainer.baselines.comparison import read_comparison
    from trainer.baselines.figure import draw_comparison
    from trainer.baselines.table import render_all
    from trainer.command import reporting
    from trainer.files import claimed, write_whole, writing

    with reporting("the same command goes on, with the rows that were finished"):
        config = read_comparison(file)
        with (
            writing(config.output, lambda: "run the same command again; the rows that were finished are kept"),
            claimed(config.output),
        ):
            comparison = compare(config, only)
            text = render_all(comparison)
            click.echo(comparison.model_dump_json() if as_json else text)
            write_whole(config.output / "compare.md", text)
            draw_comparison(comparison, config.output)
    click.echo(f"wrote {config.output}/compare.json, compare.md, compare.svg and a report a method", err=True)
