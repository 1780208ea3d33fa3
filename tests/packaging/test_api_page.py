"""The page of what ``import distill`` offers is what the docstrings say today."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import distill

ROOT = Path(__file__).parents[2]


def test_the_page_is_made_from_todays_docstrings() -> None:
    spec = importlib.util.spec_from_file_location("make_api", ROOT / "docs" / "make_api.py")
    maker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(maker)
    assert (ROOT / "docs" / "api.md").read_text(encoding="utf-8") == maker.page(), "python docs/make_api.py"


def test_the_page_names_everything() -> None:
    lines = (ROOT / "docs" / "api.md").read_text(encoding="utf-8").splitlines()
    for name in set(distill.__all__) - {"__version__"}:
        assert f"### {name}" in lines
        thing = getattr(distill, name)
        assert (thing.__doc__ or "").strip(), f"{name} has no docstring"
