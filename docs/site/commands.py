"""A page for each command, from the command line's own declarations: what ``--help`` says, to link to and to search."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from distill.cli import app
from docs.site.markdown import escaped

__all__ = ["command_pages", "commands"]

_HEAD = """# The command line

Made from the commands' own declarations: what `distill COMMAND --help` prints. `RUN` is a run folder, or a name: its
latest finished run. Tables and JSON go to standard output, progress and errors to standard error. Exit codes: 0 done;
1 the run failed; 2 a wrong command or recipe, or no such run; 3 a stated gate was missed; 4 the environment lacks
something; 130 interrupted; 143 terminated.
"""


def commands() -> dict[str, Any]:
    """Every command that does something: ``student``, ``recipe check`` ..., in the order of the help."""
    return dict(_leaves(get_command(app), ""))


def _leaves(group: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _leaves(command, f"{prefix}{name} ")
        elif not command.hidden:
            yield f"{prefix}{name}", command


def command_pages() -> dict[str, str]:
    """File below docs/ to its text: the list of all, and a page for each."""
    root, found = get_command(app), commands()
    assert isinstance(root, TyperGroup)
    panels: dict[str, list[str]] = {}
    for name in found:
        first = root.commands[name.split(" ")[0]]
        assert isinstance(first, TyperCommand | TyperGroup)
        panels.setdefault(first.rich_help_panel or "Commands", []).append(name)
    parts = [_HEAD]
    for panel, names in panels.items():
        parts += [f"## {panel}\n", "| command | what it does |", "|---|---|"]
        parts += [f"| [`{name}`](commands/{_file(name)}) | {_first(found[name])} |" for name in names]
        parts += [""]
    return {"commands.md": "\n".join(parts)} | {
        f"commands/{_file(name)}": _page(name, command) for name, command in found.items()
    }


def _file(name: str) -> str:
    return name.replace(" ", "-") + ".md"


def _first(command: Any) -> str:
    return escaped(" ".join(command.help.split("\n\n", 1)[0].split()))


def _page(name: str, command: Any) -> str:
    context = command.context_class(command, info_name=f"distill {name}")
    usage = " ".join(["distill", name, *command.collect_usage_pieces(context)])
    help_text = "\n\n".join(escaped(" ".join(part.split())) for part in command.help.split("\n\n"))
    parts = [f"# distill {name}\n", f"{help_text}\n", f"```text\n{usage}\n```\n"]
    if lines := _examples(command):
        parts += ["## Examples\n", "```sh", *lines, "```\n"]
    for panel, entries in _panels(command, context).items():
        parts += [f"## {panel}\n", *entries, ""]
    return "\n".join(parts)


def _examples(command: Any) -> list[str]:
    """The lines to copy at the end of the help."""
    return [line.strip() for line in (command.epilog or "").splitlines()[1:] if line.strip()]


def _panels(command: Any, context: Any) -> dict[str, list[str]]:
    """Title of a group of options to its entries."""
    panels: dict[str, list[str]] = {}
    for parameter in command.get_params(context):
        argument = parameter.param_type_name == "argument"
        panel = parameter.rich_help_panel or ("Arguments" if argument else "Options")
        if not parameter.hidden and parameter.name != "help":
            panels.setdefault(panel, []).append(_entry(parameter, context))
    return panels


def _entry(parameter: Any, context: Any) -> str:
    names, text = parameter.get_help_record(context)
    rest = re.sub(r"  +", "  ", " ".join(text.splitlines())).strip()
    return f"- `{names}`: {escaped(rest)}"
