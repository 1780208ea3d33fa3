"""The examples of docs/api.md, which are those of the docstrings, as one session from top to bottom."""

from __future__ import annotations

import doctest
import inspect
from pathlib import Path

import pytest
from PIL import Image

import distill
from docs.site import markdown

PAGE = (Path(__file__).parents[2] / "docs" / "api.md").read_text(encoding="utf-8")
WITHOUT = {
    "Comparison",
    "Recipe",
    "Row",
    "RunResult",
    "SearchReport",
    "__version__",
}  # what others return, in whose examples they are


def examples() -> str:
    """All of them, in the order of the page."""
    return "\n".join(fence.text for fence in markdown.fences(PAGE) if fence.text.startswith(">>>"))


@pytest.mark.slow
@pytest.mark.usefixtures("no_leave")
def test_the_examples_say_what_happens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (20, 30), (90, 160, 30)).save("photo.png")
    names = {name: getattr(distill, name) for name in distill.__all__}
    session = doctest.DocTestParser().get_doctest(examples(), names, "docs/api.md", "docs/api.md", 0)
    assert len(session.examples) > 50
    told: list[str] = []
    result = doctest.DocTestRunner(verbose=False).run(session, out=told.append)
    assert result.failed == 0, "".join(told)


def test_every_function_has_an_example_that_calls_it() -> None:
    for name in set(distill.__all__) - WITHOUT:
        doc = inspect.getdoc(getattr(distill, name)) or ""
        assert name in doc.partition("Example:")[2], f"{name} has no example"
