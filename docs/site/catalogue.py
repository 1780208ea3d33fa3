"""The bundled recipes as pages: what each is for, how it is run, what was measured; read from the YAML files."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from distill.recipe import Recipe, bundled_recipes, load_recipe
from docs.site.markdown import escaped

__all__ = ["Entry", "catalogue_pages", "entries"]

_HEAD = """# The bundled recipes

Made from the recipes' files. `distill recipe copy NAME FILE` gives you one to change; `distill student --recipe NAME`
and `distill teacher-finetune --recipe NAME` run them as they are. *Measured* is what came out here, by the file's own
words; *published* is what others have reported for that network and training. [What a recipe may say](recipes.md),
[every key](keys.md).
"""
_FIELD = re.compile(r"\b(Run|Grid|Search|Expect|Published|Ours|Without network):\s*")
_UNMEASURED = "not yet measured"
_TITLES = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100", "digits": "Digits (bundled, no download)"}


@dataclass(frozen=True)
class Entry:
    """One recipe, as its file tells it.

    Attributes:
        purpose: What stands before the first named line of its header.
        fields: The header's named lines: ``Run``, ``Expect``, ``Published``, ``Ours`` ...
        text: The whole file.
    """

    name: str
    recipe: Recipe
    purpose: str
    fields: dict[str, str]
    text: str

    @property
    def measured(self) -> str:
        """What was measured here; empty where this recipe, as it stands, was not."""
        told = self.told
        return "" if told.startswith(_UNMEASURED) else told

    @property
    def told(self) -> str:
        """What its header says of that, whatever it is."""
        return self.fields.get("Expect", self.fields.get("Ours", ""))

    @property
    def params(self) -> str:
        """The parameters that the purpose names."""
        found = re.search(r"([\d,]+) parameters", self.purpose)
        return found[1] if found else ""


def entries() -> tuple[Entry, ...]:
    """All of them, by name."""
    return tuple(_entry(name, path) for name, path in bundled_recipes().items())


def _entry(name: str, path: Path) -> Entry:
    text = path.read_text(encoding="utf-8")
    header = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        if "yaml-language-server" not in line:
            header.append(line.removeprefix("#").rstrip())
    whole = "\n".join(header)
    purpose, *rest = _FIELD.split(whole)
    fields = {key: value.strip() for key, value in zip(rest[::2], rest[1::2], strict=True)}
    return Entry(name, load_recipe(path), _joined(purpose), fields, text)


def _joined(text: str) -> str:
    return " ".join(text.split())


def catalogue_pages() -> dict[str, str]:
    """File below docs/ to its text: the list of all, and a page for each."""
    found = entries()
    parts = [_HEAD]
    for data in dict.fromkeys(entry.recipe.data.name for entry in sorted(found, key=_data_order)):
        chosen = [entry for entry in found if entry.recipe.data.name == data]
        parts += [f"## {_TITLES.get(data, f'Data set: {data}')}\n", *_table(chosen), ""]
    return {"catalogue.md": "\n".join(parts)} | {f"catalogue/{entry.name}.md": _page(entry) for entry in found}


def _data_order(entry: Entry) -> int:
    return [*_TITLES, entry.recipe.data.name].index(entry.recipe.data.name)


def _table(chosen: Iterable[Entry]) -> list[str]:
    order = {"teacher": 0, "student": 1, "baseline": 2}
    rows = [
        f"| [`{each.name}`](catalogue/{each.name}.md) | {each.recipe.role} | {each.params} | {_learns(each)} "
        f"| {_told(each.measured, '') or '-'} | {_told(each.fields.get('Published', ''), '') or '-'} |"
        for each in sorted(chosen, key=lambda each: order[each.recipe.role])
    ]
    return ["| recipe | role | parameters | learns from | measured | published |", "|---|---|---|---|---|---|", *rows]


def _learns(entry: Entry) -> str:
    teacher = entry.recipe.teacher
    kind = entry.recipe.objective.kind
    return f"`{teacher.run}` by {kind}" if teacher and teacher.run else "labels" if kind == "supervised" else kind


def _told(text: str, up: str) -> str:
    """A line of a header as Markdown: the pages that it names become links."""
    plain = escaped(_joined(text).rstrip("."))
    return re.sub(r"docs/((?:[\w-]+/)*([\w-]+))\.md", rf"[\2]({up}\1.md)", plain)


def _page(entry: Entry) -> str:
    model = entry.recipe.model
    facts = {
        "Role": entry.recipe.role,
        "Data": f"`{entry.recipe.data.name}`, {model.input_size} pixels a side",
        "Network": f"`{model.name}` of {model.source}",
        "Learns from": _learns(entry),
        "Epochs": str(entry.recipe.train.epochs),
        "Measured": _told(entry.told, "../"),
        "Published": _told(entry.fields.get("Published", ""), "../"),
        "Without network": _told(entry.fields.get("Without network", ""), "../"),
    }
    parts = [f"# {entry.name}\n", f"{escaped(entry.purpose)}\n"]
    parts += [f"- **{key}**: {value}" for key, value in facts.items() if value]
    for key in ("Run", "Grid", "Search"):
        if key in entry.fields:
            parts += ["", f"**{key}**\n", "```text", *(line.strip() for line in entry.fields[key].splitlines()), "```"]
    return "\n".join([*parts, "", "## The file\n", "```yaml", entry.text.rstrip("\n"), "```", ""])
