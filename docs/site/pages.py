"""All pages of the site in one folder, as they lie in the repository: written by people, and made from the code.

What a page links to lies beside it, so that a link that works where the repository is read works on the site.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from docs.site.catalogue import catalogue_pages
from docs.site.commands import command_pages
from docs.site.keys import keys_page
from docs.site.markdown import anchors, links

__all__ = ["ROOT", "SECTIONS", "broken_links", "pages", "stage"]

ROOT = Path(__file__).resolve().parents[2]
START = ("docs/start.md", "docs/first_steps.md")
REFERENCE = ("docs/commands.md", "docs/catalogue.md", "docs/keys.md", "docs/api.md")
RESULTS_FIRST = (
    "docs/results/real-images.md",
    "docs/results/cifar.md",
    "docs/results/cifar10-cpu.md",
    "docs/results/quickstart.md",
)
ABOUT = ("docs/reliability.md", "docs/architecture.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")
GUIDES_FIRST = (
    "docs/recipes.md",
    "docs/runs.md",
    "docs/objectives.md",
    "docs/banks.md",
    "docs/evaluate.md",
    "docs/statistics.md",
    "docs/soup.md",
    "docs/tracking.md",
    "docs/page.md",
    "docs/compress.md",
    "docs/certificate.md",
    "docs/search.md",
    "docs/own.md",
)
SECTIONS = ("Start here", "Guides", "Reference", "Results", "About")


def pages() -> dict[str, str]:
    """Every page: its place, as in the repository, to its text. README.md is the front page, ``index.md``."""
    found = {"index.md": _front()}
    for name in ("CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"):
        found[name] = _read(name)
    for path in sorted([*(ROOT / "docs").glob("*.md"), *(ROOT / "docs" / "results").glob("*.md")]):
        found[path.relative_to(ROOT).as_posix()] = path.read_text(encoding="utf-8")
    found["docs/first_steps.md"] = _notebook(ROOT / "docs" / "first_steps.ipynb")
    made = command_pages() | catalogue_pages() | {"keys.md": keys_page()}
    for index in ("commands", "catalogue"):
        made[f"{index}.md"] += _tree([name for name in made if name.startswith(f"{index}/")])
    return found | {f"docs/{name}": text for name, text in made.items()}


def listed() -> dict[str, list[str]]:
    """Section of the navigation to its pages. A new page is a guide, below ``results/`` a result."""
    top = [path.relative_to(ROOT).as_posix() for path in sorted((ROOT / "docs").glob("*.md"))]
    results = [path.relative_to(ROOT).as_posix() for path in sorted((ROOT / "docs" / "results").glob("*.md"))]
    guides = [name for name in top if name not in (*START, *REFERENCE, *ABOUT)]
    return dict(
        zip(
            SECTIONS,
            (list(START), _first(guides, GUIDES_FIRST), list(REFERENCE), _first(results, RESULTS_FIRST), list(ABOUT)),
            strict=True,
        )
    )


def _first(names: list[str], order: tuple[str, ...]) -> list[str]:
    return [name for name in order if name in names] + [name for name in names if name not in order]


def _front() -> str:
    """README.md, and behind it the navigation."""
    return _read("README.md") + "".join(_tree(names, section) for section, names in listed().items())


def _tree(names: list[str], caption: str = "") -> str:
    """The pages below one, for Sphinx's navigation."""
    lines = "\n".join(name.removesuffix(".md") for name in names)
    titled = f":caption: {caption}\n" if caption else ""
    return f"\n```{{toctree}}\n:hidden:\n{titled}\n{lines}\n```\n"


def _read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def _notebook(path: Path) -> str:
    """A notebook's cells as a page; what they print is seen when they are run."""
    parts = []
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        text = "".join(cell["source"])
        parts.append(text if cell["cell_type"] == "markdown" else f"```python\n{text}\n```")
    parts.insert(1, f"[The notebook itself]({path.name}), to run.")
    return "\n\n".join(parts) + "\n"


def broken_links(found: dict[str, str]) -> Iterator[str]:
    """Each link of these pages that leads to no page, file, anchor or address, as ``page:line: target``."""
    names = {page: anchors(text) for page, text in found.items()}
    for page, text in found.items():
        for link in links(text):
            if "://" in link.target or link.target.startswith("mailto:"):
                address = link.target.partition("://")
                whole = address[0] in ("https", "http") and "." in address[2].split("/")[0]
                if not (whole or link.target.startswith("mailto:")):
                    yield f"{page}:{link.line}: {link.target}"
                continue
            path, _, anchor = link.target.partition("#")
            target = _place(page, unquote(path)) if path else page
            known = target in names or (ROOT / target).is_file()
            if not known or (anchor and anchor not in names.get(target, ())):
                yield f"{page}:{link.line}: {link.target}"


def _place(page: str, path: str) -> str:
    """Where a relative link leads, from the repository's top; ``..`` stays where it leaves it."""
    parts: list[str] = []
    for part in (PurePosixPath(page).parent / path).parts:
        if part == ".." and parts and parts[-1] != "..":
            parts.pop()
        elif part != ".":
            parts.append(part)
    place = "/".join(parts)
    return "index.md" if place == "README.md" else place


def stage(folder: Path) -> int:
    """Write all pages, and the files that they link to, below a new folder; how many pages there are.

    Raises:
        ValueError: Links that lead nowhere; the message names each.
    """
    found = pages()
    if wrong := list(broken_links(found)):
        raise ValueError("links that lead nowhere:\n" + "\n".join(wrong))
    shutil.rmtree(folder, ignore_errors=True)
    for name, text in found.items():
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text.replace("README.md)", "index.md)"), encoding="utf-8")
        for link in links(text):
            target = _place(name, unquote(link.target.partition("#")[0]))
            if "://" not in link.target and target not in found and (ROOT / target).is_file():
                (folder / target).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(ROOT / target, folder / target)
    return len(found)
