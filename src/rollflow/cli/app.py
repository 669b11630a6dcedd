"""The commands, each in its own module; slow imports are deferred until a command needs them."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from rollflow.cli import (
    bench,
    composition,
    errors,
    experiments,
    generate,
    lists,
    profile,
    recorded,
    replay,
    report,
    score,
    searches,
    serve,
)
from rollflow.cli.help import App
from rollflow.errors import unknown


class _Group(TyperGroup):
    """A group of commands, whose error for an unknown command is that for every other unknown name."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            ctx.fail(str(unknown("command", args[0], self.list_commands(ctx))))
        return super().resolve_command(ctx, args)


class _Commands(_Group):
    """The group of all commands; reports interruptions, which Typer itself does not."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as stop:
            raise typer.Exit(errors.report(stop)) from None


app = App(
    cls=_Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Search for the best sample of a flow model that a compute budget can buy.",
)
app.command("generate")(generate.command)
app.command()(lists.methods)
app.command()(lists.models)
app.command()(lists.rewards)
app.command()(score.score)
app.command("serve-reward")(serve.serve_reward)
app.add_typer(bench.app, name="bench", cls=_Group)
bench.app.command()(profile.profile)
bench.app.command()(composition.composition)
bench.app.command()(recorded.recorded)
bench.app.command()(searches.searches)
bench.app.command("run")(experiments.run)
bench.app.command()(experiments.presets)
bench.app.command()(experiments.pack)
app.command()(replay.replay)
app.command()(report.report)
app.command()(report.compare)


def _version(wanted: bool) -> None:
    if wanted:
        from rollflow import __version__

        print(f"rollflow {__version__}")
        raise typer.Exit


@app.callback()
def options_of_all(
    version: Annotated[
        bool, typer.Option("--version", "-V", help="Show the version and exit.", is_eager=True, callback=_version)
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error; same as ROLLFLOW_DEBUG=1.")
    ] = False,
) -> None:
    """Search for the best sample of a flow model that a compute budget can buy."""
