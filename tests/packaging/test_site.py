"""The documentation site, without the packages that draw it: every page is listed, every link leads somewhere, every
command, recipe and key has its place.
"""

from __future__ import annotations

import re
from itertools import takewhile
from pathlib import Path

import pytest
from typer.testing import CliRunner

from distill.cli import app
from distill.recipe import describe_schema
from docs.site import catalogue, check, commands, markdown, pages

ROOT = Path(__file__).parents[2]
FOUND = pages.pages()
RECIPES = sorted(path.stem for path in (ROOT / "recipes").glob("*.yaml"))
COMMANDS = sorted(commands.commands())


def test_every_link_leads_somewhere() -> None:
    assert list(pages.broken_links(FOUND)) == []
    assert sum(1 for text in FOUND.values() for _ in markdown.links(text)) > 100


@pytest.mark.parametrize(
    "target", ["docs/nowhere.md", "docs/banks.md#no-such-heading", "#none", "https://", "htps://a.b", "../outside.md"]
)
def test_a_link_that_leads_nowhere_is_told_with_its_line(target: str) -> None:
    wrong = FOUND | {"index.md": f"# Title\n\nText, and\n[a link]({target}).\n"}
    assert list(pages.broken_links(wrong)) == [f"index.md:3: {target}"]


def test_headings_have_the_anchors_that_github_gives_them() -> None:
    text = "# A `code` word, and more\n\n## Views, banks & all_of it\n\n## Twice\n\n## Twice\n"
    assert markdown.anchors(text) == {"a-code-word-and-more", "views-banks--all_of-it", "twice", "twice-1"}


def test_every_page_is_in_the_navigation_once() -> None:
    listed = [name for names in pages.listed().values() for name in names]
    assert len(listed) == len(set(listed))
    below = {name for name in FOUND if name.startswith(("docs/commands/", "docs/catalogue/"))}
    assert set(listed) | below | {"index.md"} == set(FOUND)
    for path in [*(ROOT / "docs").glob("*.md"), *(ROOT / "docs" / "results").glob("*.md")]:
        assert path.relative_to(ROOT).as_posix() in listed
    for name in below:
        index = FOUND[f"{name.rsplit('/', 1)[0]}.md"]
        assert f"({name.removeprefix('docs/')})" in index, f"{name} is in no list"


def test_each_page_begins_with_its_one_title() -> None:
    for name, text in FOUND.items():
        outside = re.sub(r"^( *)```.*?^\1```", "", text, flags=re.MULTILINE | re.DOTALL)
        assert text.startswith("# "), name
        assert len(re.findall(r"^# ", outside, re.MULTILINE)) == 1, name


@pytest.mark.parametrize("name", COMMANDS)
def test_a_commands_page_has_what_its_help_has(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    told = CliRunner().invoke(app, [*name.split(" "), "--help"])
    assert told.exit_code == 0
    text = FOUND[f"docs/commands/{name.replace(' ', '-')}.md"]
    options = set(re.findall(r"(?<![\w-])--[a-z][\w-]*", told.output)) - {"--help"}
    assert options <= set(re.findall(r"--[a-z][\w-]*", text))


def test_every_command_that_the_help_lists_has_a_page() -> None:
    def names(*group: str) -> set[str]:
        told = CliRunner().invoke(app, [*group, "--help"], env={"COLUMNS": "200"}).output
        return set(re.findall(r"^│ ([a-z][\w-]+) {2,}", told, re.MULTILINE))

    groups = ("cache", "recipe", "runs")
    top = names()
    assert top >= {"student", "compare", *groups}
    assert (top - set(groups)) | {f"{group} {name}" for group in groups for name in names(group)} == set(COMMANDS)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipes_page_has_its_file_and_its_figures(name: str) -> None:
    text = (ROOT / "recipes" / f"{name}.yaml").read_text(encoding="utf-8")
    page = FOUND[f"docs/catalogue/{name}.md"]
    assert text.strip() in page
    head, _, _ = page.partition("## The file")
    header = "\n".join(takewhile(lambda line: line.startswith("#"), text.splitlines()))
    for figure in re.findall(r"\d+\.\d+%|[\d,]{5,}", header):
        assert figure in head
    (entry,) = (each for each in catalogue.entries() if each.name == name)
    assert "Run" in entry.fields
    assert entry.told, "its header says nothing of what was measured: '# Expect: not yet measured.'"
    assert entry.params
    if entry.measured:
        assert re.search(r"docs/results/|seed|n =", entry.measured), "a figure without its n or its page"


def test_the_catalogue_shows_figures_where_there_are_some() -> None:
    lines = {
        match[1]: match[0] for match in re.finditer(r"^\| \[`(\w+)`\].*$", FOUND["docs/catalogue.md"], re.MULTILINE)
    }
    assert sorted(lines) == RECIPES
    assert "64.79% (n = 1; 5 CPU-minutes of one thread" in lines["lenet_cifar10"]
    assert "[cifar](results/cifar.md))" in lines["lenet_cifar10"]
    assert "| - | - |" in lines["resnet152_cifar10"]


def test_every_key_is_on_its_page() -> None:
    told = set(re.findall(r"^- \*\*`([\w.]+)`\*\*", FOUND["docs/keys.md"], re.MULTILINE))
    sections = set(re.findall(r"^## (\w+)$", FOUND["docs/keys.md"], re.MULTILINE))
    assert {key.path for key in describe_schema()} <= told | sections
    assert len(told) > 100


def test_links_of_the_drawn_site_are_followed(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "index.html").write_text(
        '<h1 id="top">A</h1><a href="sub/b.html#here">b</a><a href="#top">top</a><a href="https://example.org/x">out</a>'
    )
    (tmp_path / "sub" / "b.html").write_text('<p id="here"><a href="../index.html">back</a>')
    assert list(check.check_site(tmp_path)) == []
    (tmp_path / "sub" / "b.html").write_text(
        '<a href="../index.html#gone">x</a><img src="no.png"><a href="htp:x">y</a>'
        '<script src="https://example.org/s.js"></script>'
    )
    assert list(check.check_site(tmp_path)) == [
        "index.html: sub/b.html#here",
        "sub/b.html: ../index.html#gone",
        "sub/b.html: htp:x",
        "sub/b.html: https://example.org/s.js",
        "sub/b.html: no.png",
    ]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Sphinx's own
def test_the_site_is_drawn_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("sphinx", reason="needs the docs extra")
    pytest.importorskip("furo", reason="needs the docs extra")
    from docs.site.__main__ import main

    assert main(tmp_path) == 0
    assert (tmp_path / "html" / "index.html").is_file()
