"""`python -m gears`: install, inspect and remove the recipe; reports are JSON."""

import typer

from gears.access.command import access
from gears.cli import recipe_command
from gears.cli.recipe_command import EngineOption, LeftOption, OneOption

app = typer.Typer(add_completion=False, no_args_is_help=True, help="The recipe that makes Redis write through.")

app.add_typer(access, name="access")


@app.command()
def install(engine: EngineOption = None) -> None:
    """Install the recipe for every mapping; doing it again changes nothing."""
    recipe_command.install(engine, as_json=True)


@app.command()
def status(engine: EngineOption = None) -> None:
    """Show how capture is doing; exits with 1 when it isn't working for every mapping, with 2 when nobody can tell."""
    recipe_command.status(engine, as_json=True)


@app.command()
def remove(engine: EngineOption = None, mapping: LeftOption = None) -> None:
    """Remove the recipe; documents and sync streams stay."""
    if mapping is None:
        recipe_command.remove(engine, as_json=True)
    else:
        recipe_command.remove_one(engine, mapping, as_json=True)


@app.command("print")
def print_text(engine: EngineOption = None, mapping: OneOption = None) -> None:
    """Print the recipe, for other tools to send."""
    recipe_command.print_text(engine, mapping)


if __name__ == "__main__":
    app(prog_name="python -m gears")
