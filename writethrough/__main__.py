"""`writethrough`: one command for all that there is to do."""

from importlib.metadata import version
from typing import Annotated

import typer

from gears.access.command import access
from gears.cli import recipe_command
from gears.cli.recipe_command import EngineOption, JsonOption, LeftOption, OneOption
from service.commands import run, serve
from worker.__main__ import audit, commit, main, reconcile, restore
from writethrough.check.command import check
from writethrough.config_command import config
from writethrough.dead_letters_command import dead_letters
from writethrough.tail_command import tail

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Write-through from Redis to MongoDB. Settings come from the environment, and from the file in WT_CONFIG.",
)
worker = typer.Typer(help="Bring what the recipe captured to MongoDB: commit and reconcile, or one of the two.")
recipe = typer.Typer(no_args_is_help=True, help="The recipe that makes Redis write through.")


def _tell_version(asked: bool) -> None:
    if asked:
        typer.echo(f"writethrough {version('writethrough')}")
        raise typer.Exit


@app.callback()
def _all(
    _: Annotated[
        bool, typer.Option("--version", callback=_tell_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


@recipe.command()
def install(engine: EngineOption = None, as_json: JsonOption = False) -> None:
    """Install the recipe for every mapping; doing it again changes nothing."""
    recipe_command.install(engine, as_json=as_json)


@recipe.command()
def status(engine: EngineOption = None, as_json: JsonOption = False) -> None:
    """Show how capture is doing; exits with 1 when it isn't working for every mapping, with 2 when nobody can tell."""
    recipe_command.status(engine, as_json=as_json)


@recipe.command()
def remove(engine: EngineOption = None, mapping: LeftOption = None, as_json: JsonOption = False) -> None:
    """Remove the recipe; documents and sync streams stay."""
    if mapping is None:
        recipe_command.remove(engine, as_json=as_json)
    else:
        recipe_command.remove_one(engine, mapping, as_json=as_json)


@recipe.command("print")
def print_text(engine: EngineOption = None, mapping: OneOption = None) -> None:
    """Print the recipe of a mapping, for other tools to send: what they send is the recipe."""
    recipe_command.print_text(engine, mapping)


worker.callback(invoke_without_command=True)(main)
worker.command()(commit)
worker.command()(reconcile)

app.command()(run)
app.command()(serve)
app.command()(audit)
app.command()(restore)
app.command()(check)
app.command()(config)
app.command()(tail)
app.add_typer(worker, name="worker")
app.add_typer(recipe, name="recipe")
app.add_typer(access, name="access")
app.add_typer(dead_letters, name="dead-letters")

if __name__ == "__main__":
    app(prog_name="writethrough")
