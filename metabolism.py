"""The one command, and the one file that sees every package: it puts the groups together and nothing more.

A group is imported when one of its commands is called, so `metabolism knowledge list` never waits for a web framework.
"""

import importlib
import sys
from importlib.metadata import PackageNotFoundError, version

import click

_COMMANDS = {
    "serve": ("service.command", "Serve the core and its memory over HTTP."),
    "ask": ("service.command", "Ask a question and print the answer."),
    "key": ("service.command", "Make, list and revoke the keys of a server."),
    "knowledge": ("knowledge_store.command", "Fill, ask and look after the symbolic RAM."),
    "pretrain": ("trainer.command", "Train the demo base, from nothing."),
    "check": ("trainer.command", "Check a training run before it is started."),
    "train": ("trainer.command", "Take the facts out of a language model."),
    "resume": ("trainer.command", "Go on with an interrupted training run."),
    "evaluate": ("trainer.command", "Measure what a core forgot and what it kept."),
    "compare": ("trainer.command", "Run every method of a list and put them in one table."),
}


class _LazyGroup(click.Group):
    """A group whose commands are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*_COMMANDS, *super().list_commands(ctx)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return super().get_command(ctx, cmd_name)
        command = getattr(importlib.import_module(_COMMANDS[cmd_name][0]), cmd_name)
        assert isinstance(command, click.Command), f"{cmd_name} is a command"
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        own = [(name, super(_LazyGroup, self).get_command(ctx, name)) for name in super().list_commands(ctx)]
        rows = [(name, text) for name, (_, text) in _COMMANDS.items()]
        rows += [(name, command.get_short_help_str(80)) for name, command in own if command is not None]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Neural CPU + Symbolic RAM: a language model that reasons, and a fact store that it reads from while it does.

    Every option has an environment variable METABOLISM_… of the same name. With --json a command prints one JSON
    document on standard output; progress and logs go to standard error.

    Exit codes: 0 done; 1 the answer is no; 2 wrong use; 3 something outside failed.
    """


@main.command("version")
@click.option("--json", "as_json", is_flag=True, envvar="METABOLISM_JSON", help="Print one JSON document.")
def show_version(as_json: bool) -> None:
    """Print the versions of the package, of its protocol and of Python."""
    import json

    from knowledge_store.protocol import PROTOCOL_VERSION

    versions = {"version": package_version(), "protocol_version": PROTOCOL_VERSION, "python": sys.version.split()[0]}
    if as_json:
        click.echo(json.dumps(versions))
    else:
        click.echo("metabolism {version}, protocol {protocol_version}, Python {python}".format(**versions))


def package_version() -> str:
    """Give the installed package's version; "0" where it runs from a folder that was never installed."""
    try:
        return version("digital-metabolism")
    except PackageNotFoundError:
        return "0"


if __name__ == "__main__":
    main()
