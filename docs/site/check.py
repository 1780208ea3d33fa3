"""Every link of a folder of HTML, followed as a browser would: files and anchors inside it, addresses by their form."""

from __future__ import annotations

from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

__all__ = ["check_site"]


class _Page(HTMLParser):
    """What a page points to, and what in it can be pointed to."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.targets: set[str] = set()
        self.loaded: set[str] = set()
        self.names: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for key, value in attrs:
            if key in ("href", "src") and value:
                self.targets.add(value)
                if key == "src" or tag == "link":
                    self.loaded.add(value)
            elif key in ("id", "name") and value:
                self.names.add(value)


def check_site(folder: Path) -> Iterator[str]:
    """Each link that leads nowhere, and each thing that would be loaded from elsewhere, as ``page: target``."""
    pages = {path.resolve(): _Page(path) for path in sorted(folder.rglob("*.html"))}
    for path, page in pages.items():
        shown = path.relative_to(folder.resolve())
        for target in sorted(page.targets):
            parts = urlsplit(target)
            if parts.scheme in ("data", "mailto"):
                continue
            if parts.scheme or parts.netloc:
                if parts.scheme not in ("http", "https") or "." not in parts.netloc or target in page.loaded:
                    yield f"{shown}: {target}"
                continue
            file = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            names = pages[file].names if file in pages else set()
            known = file.is_file() and (not parts.fragment or file not in pages or unquote(parts.fragment) in names)
            if not known:
                yield f"{shown}: {target}"
