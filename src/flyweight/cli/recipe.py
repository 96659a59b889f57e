"""`flyweight recipe list / show`."""

from __future__ import annotations

import json
from typing import Annotated

import typer
import yaml
from rich.console import Console
from rich.table import Table

app = typer.Typer(add_completion=False, no_args_is_help=True, help="List and show the shipped recipes.")


@app.command(name="list")
def list_recipes(as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False) -> None:
    """List the shipped recipes and the results they give."""
    from flyweight.train.recipe import load_recipe, shipped_recipes

    recipes = [load_recipe(name) for name in shipped_recipes()]
    if as_json:
        print(json.dumps({recipe.name: {"model": recipe.model.name, **recipe.expected} for recipe in recipes}))
        return
    table = Table("recipe", "model", "expected", box=None, header_style="bold")
    for recipe in recipes:
        table.add_row(recipe.name, recipe.model.name, "; ".join(f"{k}: {v}" for k, v in recipe.expected.items()))
    Console().print(table)


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="A shipped recipe or a YAML file.")],
    set_: Annotated[list[str] | None, typer.Option("--set", help="Change it, e.g. optim.lr=0.1.")] = None,
) -> None:
    """Print a recipe with every field, ready to be saved and changed."""
    from flyweight.train.recipe import load_recipe

    recipe = load_recipe(name).with_settings(set_ or [])
    print(yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True), end="")
