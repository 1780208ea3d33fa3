"""Write docs/api.md from the docstrings of what ``import distill`` offers: ``python docs/make_api.py``."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import distill

PAGE = Path(__file__).with_name("api.md")
HEAD = """# What `import distill` offers

Made from the docstrings by `python docs/make_api.py`; a test compares the two. Sides of images are in pixels,
accuracies are fractions, times are what their names say (`_ms`, `seconds`). What names a run, a recipe or a folder may
be text, a `Path` or the object that an earlier call returned. Errors are subclasses of `DistillError`; each is a line
that says what, where and what to do next.

The examples belong together, from the first to the last: a test runs them as one session, in a folder that holds
nothing but a picture, `photo.png`.
"""
GROUPS = {
    "Train": (
        "finetune_teacher",
        "train_student",
        "train_generations",
        "train_seeds",
        "resume_run",
        "rerun",
        "import_weights",
        "soup",
        "quickstart",
        "dry_run",
        "Options",
        "RunResult",
    ),
    "Recipes": ("load_recipe", "dump_recipe", "Recipe", "offer_data", "allow_code"),
    "Measure": (
        "compare",
        "Comparison",
        "Row",
        "evaluate",
        "evaluate_runs",
        "similarity",
        "predict",
        "write_page",
        "check_kernels",
    ),
    "What ships": (
        "compress",
        "prune",
        "quantize",
        "export",
        "certify",
        "verify_file",
        "write_kit",
        "load_model",
        "model_card",
        "write_card",
    ),
    "Banks": ("build_bank", "build_banks", "list_banks", "verify_banks", "clear_banks"),
    "Sweeps": ("sweep", "resume_sweep"),
    "Budget first": ("search", "SearchReport"),
    "Runs and models": ("list_runs", "open_run", "list_models", "describe_model"),
    "Progress and errors": ("ProgressPrinter", "DistillError"),
}
SECTION = re.compile(r"(Args|Attributes|Raises|Returns|Yields|Shapes|Example|Note):\s*(.*)")


def page() -> str:
    """The whole page."""
    grouped = [name for names in GROUPS.values() for name in names]
    others = [name for name in distill.__all__ if name not in grouped and not name.startswith("_")]
    groups = GROUPS | ({"More": tuple(others)} if others else {})
    parts = [HEAD]
    for title, names in groups.items():
        parts += [f"## {title}\n", *(entry(name, getattr(distill, name)) for name in names)]
    return "\n".join(parts)


def entry(name: str, thing: Any) -> str:
    """One name: its signature and its docstring as Markdown."""
    return (
        f"### {name}\n\n```python\n{signature(name, thing)}\n```\n\n"
        + "\n".join(body(inspect.getdoc(thing) or ""))
        + "\n"
    )


def signature(name: str, thing: Any) -> str:
    """As it is written in the code; a line for each argument where one line is too short."""
    if inspect.isclass(thing) and (issubclass(thing, Exception) or hasattr(thing, "model_fields")):
        return f"class {name}"
    described = inspect.signature(thing)
    written = [argument(each) for each in described.parameters.values()]
    kinds = [each.kind for each in described.parameters.values()]
    if inspect.Parameter.KEYWORD_ONLY in kinds and inspect.Parameter.VAR_POSITIONAL not in kinds:
        written.insert(kinds.index(inspect.Parameter.KEYWORD_ONLY), "*")
    returned = "" if inspect.isclass(thing) else f" -> {described.return_annotation}"
    line = f"{name}({', '.join(written)}){returned}"
    return line if len(line) <= 100 else f"{name}(\n" + "".join(f"    {each},\n" for each in written) + f"){returned}"


def argument(parameter: inspect.Parameter) -> str:
    """Its name, type and default."""
    stars = {inspect.Parameter.VAR_POSITIONAL.name: "*", inspect.Parameter.VAR_KEYWORD.name: "**"}
    star = stars.get(parameter.kind.name, "")
    kind = "" if parameter.annotation is inspect.Parameter.empty else f": {parameter.annotation}"
    if parameter.default is inspect.Parameter.empty:
        return f"{star}{parameter.name}{kind}"
    default = f'Path("{parameter.default}")' if isinstance(parameter.default, Path) else repr(parameter.default)
    default = "..." if default.startswith("<") else default
    return f"{star}{parameter.name}{kind} = {default}" if kind else f"{parameter.name}={default}"


def body(doc: str) -> Iterator[str]:
    """A Google docstring as lines of Markdown."""
    inside = shown = False
    for line in doc.splitlines():
        section = SECTION.fullmatch(line)
        example = inside and not section and (shown or line.startswith("    >>>")) and bool(line)
        if example != shown:
            yield "```python" if example else "```"
        shown = example
        if example:
            yield line.removeprefix("    ")
        elif section:
            inside = True
            yield f"**{section[1]}**\n"
            if section[2]:
                yield marked(section[2])
        elif not line.startswith(" "):
            inside = False if line else inside
            yield marked(line)
        elif inside and (item := re.match(r" {4}(\*{0,2}\w[\w., ]*):\s(.*)", line)):
            yield f"- `{item[1]}`: {marked(item[2])}"
        elif inside:
            yield "  " + marked(line.strip())
        else:
            yield line
    if shown:
        yield "```"


def marked(text: str) -> str:
    """Markdown for what docstrings mark as code."""
    return re.sub(r":\w+:`~?([^`]+)`", r"`\1`", text).replace("``", "`")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
