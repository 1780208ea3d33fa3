"""From the page's content to one HTML file: no network, no library, every foreign word escaped."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import replace
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from distill.report.page import charts, markers, table, trust
from distill.report.page.content import Page
from distill.results.corruptions import CORRUPTION_NAMES
from distill.text import MISSING, brief, count, counted, duration, fixed, percent, plain_lines, signed

__all__ = ["GENERATOR", "MAX_BYTES", "render_page"]

GENERATOR = "distill report"
"""How a page says what made it: only such a file is replaced."""

MAX_BYTES = 2_000_000


def render_page(page: Page) -> str:
    """The page as HTML of less than two million bytes; thumbnails, then recipes are left out where they would not fit.

    The policy in its head lets a browser load nothing, and run and apply nothing but what is written here.
    """
    for lighter in (page, *_lighter(page)):
        text = _rendered(lighter)
        if len(text.encode()) < MAX_BYTES:
            break
    return text


def _lighter(page: Page) -> list[Page]:
    """The page with less and less in it, each time said."""
    why = "left out: the page would be larger than 2 MB"
    pictures = replace(page, hardest=(), missing={**page.missing, "hardest": why})
    members = tuple(replace(each, recipe="") for each in page.members)
    recipes = replace(pictures, members=members, missing={**pictures.missing, "recipes": why})
    bare = tuple(replace(each, curves={}, recipe="") for each in page.members)
    return [pictures, recipes, replace(recipes, members=bare, missing={**recipes.missing, "curves": why})]


def _rendered(page: Page) -> str:
    style, script = _asset("page.css"), _asset("page.js")
    return (
        _environment()
        .get_template("page.html.jinja")
        .render(
            page=page,
            comparison=page.comparison,
            columns=table.columns(page.members),
            charts=charts,
            markers=markers,
            trust=trust,
            pair=page.pair,
            teacher=page.member(page.pair.teacher) if page.pair else None,
            student=page.member(page.pair.student) if page.pair else None,
            generator=GENERATOR,
            style=Markup(style),
            script=Markup(script),
            policy=f"default-src 'none'; img-src data:; style-src '{_digest(style)}'; script-src '{_digest(script)}'",
        )
    )


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("distill.report.page", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    environment.filters |= {
        "count": count,
        "counted": counted,
        "duration": duration,
        "foldable": _foldable,
        "fixed": fixed,
        "percent": percent,
        "brief": brief,
        "lines": plain_lines,
        "signed": signed,
        "png": lambda data: f"data:image/png;base64,{base64.b64encode(data).decode('ascii')}",
    }
    environment.globals |= {"MISSING": MISSING, "corruption_names": CORRUPTION_NAMES}
    return environment


def _shown(value: Any) -> Any:
    """What a template prints: text with control characters spelled out, a dash for what is not there."""
    if value is None:
        return MISSING
    return plain_lines(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _foldable(name: str) -> Markup:
    """A name that a narrow column breaks behind an underscore, and elsewhere only where that is not enough."""
    return Markup("_<wbr>").join(plain_lines(name).split("_"))


def _asset(name: str) -> str:
    return resources.files("distill.report.page").joinpath(name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode('ascii')}"
