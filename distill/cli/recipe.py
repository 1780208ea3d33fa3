"""``distill recipe``: list, show, copy, check, objectives, schema."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from distill.cli import completion, options
from distill.cli.output import Output, open_console
from distill.errors import DistillError, RecipeError, UsageError

if TYPE_CHECKING:
    from distill.recipe import Recipe
    from distill.results.rows import RecipeRow

__all__ = ["app"]

_USUAL_CLASSES = 10  # shapes before the classifier do not depend on it

app = typer.Typer(no_args_is_help=True, help="List, show, copy and check recipes; list objectives.")

_Name = Annotated[
    str,
    typer.Argument(
        metavar="NAME",
        help="The name of a bundled recipe, or a file.",
        show_default=False,
        autocompletion=completion.complete_recipes,
    ),
]

_Overwrite = Annotated[bool, typer.Option("--overwrite", "--force", help="Replace an existing file.")]


@app.command("list", epilog=options.examples("distill recipe list", "distill recipe list --json"))
def list_recipes(*, json: options.JsonOption = False) -> None:
    """List the bundled recipes."""
    from distill.recipe import bundled_recipes
    from distill.report.tables import recipes_table

    rows = [_row(name, path) for name, path in sorted(bundled_recipes().items())]
    Output(json=json).show(rows, lambda width: recipes_table(rows, width))


def _row(name: str, path: Path) -> RecipeRow:
    from distill.recipe import load_recipe
    from distill.results.rows import RecipeRow

    recipe = load_recipe(path)
    teacher = recipe.teacher
    return RecipeRow(
        name=name,
        role=recipe.role,
        dataset=recipe.data.name,
        model=recipe.model.name,
        objective=recipe.objective.title,
        teacher=(teacher.run or teacher.onnx or teacher.bank or f"{len(teacher.banks)} banks") if teacher else None,
        epochs=recipe.train.epochs,
        purpose=_purpose(path),
    )


def _purpose(path: Path) -> str:
    """The first comment of a recipe says what it is for."""
    first = path.read_text(encoding="utf-8").split("\n", 1)[0]
    return first.lstrip("# ").strip() if first.startswith("#") else ""


@app.command("show", epilog=options.examples("distill recipe show r18_small", "distill recipe show r18_small --full"))
def show(
    *,
    name: _Name,
    changes: options.SetOption = None,
    full: Annotated[bool, typer.Option("--full", help="Spell out every default; comments are omitted.")] = False,
) -> None:
    """Print a recipe: as it is written, or with --full or --set with every default spelled out."""
    from distill.recipe import dump_recipe, load_recipe

    recipe = load_recipe(name, changes or [])
    text = dump_recipe(recipe) if full or changes else _file(name).read_text(encoding="utf-8")
    if sys.stdout.isatty():
        from rich.syntax import Syntax

        open_console().print(Syntax(text, "yaml", background_color="default", word_wrap=True))
    else:
        Output().text(text)


def _file(name: str) -> Path:
    from distill.recipe import find_recipe

    return Path(name) if Path(name).is_file() else find_recipe(name)


@app.command("copy", epilog=options.examples("distill recipe copy r18_small mine.yaml"))
def copy(
    *,
    name: _Name,
    target: Annotated[Path, typer.Argument(metavar="FILE", help="The target file or folder.", show_default=False)],
    overwrite: _Overwrite = False,
) -> None:
    """Copy a recipe, with comments, for editing; beside it goes the schema, for checks in editors."""
    from distill.recipe import SCHEMA_FILE, schema_text

    source = _file(name)
    path = target / source.name if target.is_dir() else target
    if path.exists() and not overwrite:
        raise UsageError(f"{path} exists", hint="name another file, or replace it with --overwrite")
    output = Output()
    output.file(source.read_text(encoding="utf-8"), path)
    if not (beside := path.parent / SCHEMA_FILE).exists():  # the copy's first lines name it, for editors
        output.file(schema_text(), beside)
    output.note(f"next: distill recipe check {path}")


@app.command(
    "new",
    epilog=options.examples(
        "distill recipe new photos",
        "distill recipe new photos.zip --out mine",
        "distill recipe new photos --unlabelled more",
        "distill recipe new photos --teacher resnet152 --student mobilenetv3_small_100",
    ),
)
def new(
    *,
    pictures: Annotated[
        Path,
        typer.Argument(metavar="DIR", help="Your pictures: a folder or archive of class folders.", show_default=False),
    ],
    name: Annotated[
        str | None,
        typer.Option("--name", metavar="NAME", help="Prefix of the recipes' names.", show_default="the folder's name"),
    ] = None,
    unlabelled: Annotated[
        Path | None,
        typer.Option(
            "--unlabelled",
            metavar="DIR",
            help="More pictures, without labels, at any depth: the student learns the teacher's answers to them.",
            show_default=False,
        ),
    ] = None,
    teacher: Annotated[
        str | None,
        typer.Option("--teacher", metavar="NAME", help="A classifier of timm's, fine-tuned.", show_default="resnet34"),
    ] = None,
    teacher_weights: Annotated[
        Path | None,
        typer.Option(
            "--teacher-weights",
            metavar="FILE",
            help="A .safetensors file of it, where timm's hub is out of reach.",
            show_default="timm's, downloaded",
        ),
    ] = None,
    student: Annotated[
        str | None,
        typer.Option(
            "--student",
            metavar="NAME",
            help="A classifier of timm's, with its weights, under 5 million parameters.",
            show_default="a compact ResNet, from scratch",
        ),
    ] = None,
    student_weights: Annotated[
        Path | None,
        typer.Option(
            "--student-weights",
            metavar="FILE",
            help="A .safetensors file of --student.",
            show_default="timm's, downloaded",
        ),
    ] = None,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for the recipes.")] = Path(),
    overwrite: _Overwrite = False,
) -> None:
    """Inspect a folder of pictures and write recipes for it, with reasons: teacher, student, and the student alone."""
    from distill.pipeline.draft import DEFAULT_TEACHER, draft_recipes, write_draft
    from distill.report.drafts import draft_table

    try:
        draft = draft_recipes(
            pictures,
            name=name,
            unlabelled=unlabelled,
            teacher=DEFAULT_TEACHER if teacher is None else teacher,
            teacher_weights=teacher_weights,
            student=student,
            student_weights=student_weights,
        )
    except DistillError as error:
        # no recipe yet that has keys
        error.message = error.message.removeprefix("data.root ").removeprefix("data.unlabelled ")
        error.hint = error.hint and error.hint.replace("--set data.root=", "distill recipe new ")
        raise
    written = write_draft(draft, out, overwrite=overwrite)
    output = Output()
    output.table(lambda _: draft_table(draft.survey, draft.set_aside, draft.unlabelled))
    for path in written:
        output.note(f"wrote {path}")
    for role in draft.downloads:
        output.note(f"the {role}'s first run downloads timm's weights; without a network: --{role}-weights FILE")
    teach, learn, alone, *_ = (shlex.quote(str(path)) for path in written)
    output.text(f"distill teacher-finetune --recipe {teach}")
    output.text(f"distill student --recipe {learn}")
    output.text(f"distill student --recipe {alone}")
    output.text(f"distill compare {draft.name}_teacher {draft.name}_student {draft.name}_scratch")


@app.command("check", epilog=options.examples("distill recipe check mine.yaml", "distill recipe check recipes/*.yaml"))
def check(
    *,
    names: Annotated[
        list[str],
        typer.Argument(metavar="NAMES", help="Files, or names of bundled recipes.", show_default=False),
    ],
    changes: options.SetOption = None,
) -> None:
    """Check recipes: every error with its file and line, and the parameter budget. Reads no data."""
    output = Output()
    mistakes: list[UsageError] = []
    for name in names:
        try:
            output.text(_checked(name, changes or []))
        except UsageError as error:
            mistakes.append(error)
    if mistakes:
        hints = "\n".join(dict.fromkeys(error.hint for error in mistakes if error.hint))
        raise RecipeError("\n".join(error.message for error in mistakes), hint=hints or None)


def _checked(name: str, changes: Iterable[str]) -> str:
    from distill.code import code_is_allowed
    from distill.recipe import load_recipe

    recipe = load_recipe(name, list(changes))
    if kept := [each for each in recipe.own_code if not code_is_allowed(each)]:
        return f"{name}: ok; {', '.join(kept)} was not run: that takes --allow-code"
    params = _params(recipe)
    counted = "parameters not counted: its data is not here" if params is None else f"{params:,} parameters"
    return f"{name}: ok, {counted}"


def _params(recipe: Recipe) -> int | None:
    """The parameters, within the budget; None where the number of classes is in a folder that is not there."""
    from distill.data.datasets import num_classes
    from distill.data.views import check_size
    from distill.models import check_network, check_shapes

    if recipe.data.image_size != "auto" or not recipe.data.is_found_out:
        try:
            check_size(recipe.augment, recipe.data.side)
        except RecipeError as error:
            raise RecipeError(f"{recipe.name}: {error.message}", hint=error.hint) from error
    try:
        classes = num_classes(recipe.data)
    except DistillError:
        check_shapes(recipe, _USUAL_CLASSES)
        return None
    return check_network(recipe, classes)


@app.command("objectives", epilog=options.examples("distill recipe objectives", "distill recipe objectives dkd"))
def objectives(
    kind: Annotated[
        str | None,
        typer.Argument(metavar="KIND", help="One of them, with every key that it takes.", show_default="all of them"),
    ] = None,
    *,
    json: options.JsonOption = False,
) -> None:
    """List the objectives: what each minimises, asks of a teacher, and has for defaults."""
    from distill.recipe import describe_objective, list_objectives
    from distill.report.tables import objective_table, objectives_table

    output = Output(json=json)
    if kind is None:
        kinds = list_objectives()
        output.show(kinds, lambda width: objectives_table(kinds, width))
        return
    found, keys = describe_objective(kind)
    output.show(found, lambda width: objective_table(found, keys, width))


@app.command(
    "schema", epilog=options.examples("distill recipe schema", "distill recipe schema --json > recipe.schema.json")
)
def schema(*, json: options.JsonOption = False) -> None:
    """Explain every key of a recipe; --json prints the JSON Schema, for editors to complete and check YAML."""
    from distill.recipe import describe_schema, recipe_schema
    from distill.report.tables import schema_table

    Output(json=json).show(recipe_schema() if json else None, lambda width: schema_table(describe_schema(), width))
