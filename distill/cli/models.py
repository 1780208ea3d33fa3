"""``distill models``."""

from __future__ import annotations

from typing import Annotated

import typer

from distill.cli import completion, options
from distill.cli.output import Output

__all__ = ["EXAMPLES", "command"]

EXAMPLES = options.examples("distill models", "distill models r18_small", "distill models r18_small --json")


def command(
    *,
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME",
            help="A recipe, to show its network layer by layer.",
            show_default="every bundled recipe's network",
            autocompletion=completion.complete_recipes,
        ),
    ] = None,
    changes: options.SetOption = None,
    json: options.JsonOption = False,
) -> None:
    """List networks with their exact parameters and GMACs, or show one layer by layer.

    What installed packages add to recipes through entry points (distill.students, distill.teachers,
    distill.objectives, distill.data) is listed below, with its origin.
    """
    from distill.report.tables import layers_table, models_table

    output = Output(json=json)
    if name is None:
        from distill.code import list_offered
        from distill.report.catalogue import list_models

        models, offered = list_models(), list_offered()
        output.show((*models, *offered), lambda width: models_table(models, width, offered))
    else:
        from distill.recipe import load_recipe
        from distill.report.catalogue import describe_model

        summary = describe_model(load_recipe(name, changes or []))
        output.show(summary, lambda width: layers_table(summary, width))
