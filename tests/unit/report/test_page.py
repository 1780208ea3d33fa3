"""The page as text: what a parser finds in it, what it may do, how large it is."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from xml.etree import ElementTree as ET

import pytest

from distill.report.page import charts, trust
from distill.report.page.draw import Scale, Svg, ticks
from distill.report.page.render import MAX_BYTES, render_page
from distill.report.page.table import columns
from distill.report.page.words import against, kept, lead

HOSTILE = [
    "<script>alert('{}')</script>",
    '"><img src=x onerror=alert(1)>{}',
    "'><svg onload=alert(1)>{}",
    "</style><script>{}</script>",
    "</title></pre></details><h1>{}",
    "{{ 7 * 7 }}{}{% raw %}",
    "{}&amp;<!--",
    "\N{RIGHT-TO-LEFT OVERRIDE}{}\x1b[31m\x00",
    "{}\udcff",
    "javascript:alert('{}')",
]
TAGS_WITHOUT_END = {"meta", "link", "img", "br"}


class Reader(HTMLParser):
    """What a browser would see: elements with attributes, and text."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in TAGS_WITHOUT_END:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def test_every_element_is_closed_in_its_place(make_page) -> None:
    reader = Reader(render_page(make_page()))
    assert reader.open == []
    assert len(reader.of("section")) == 10


@pytest.mark.parametrize("word", HOSTILE, ids=range(len(HOSTILE)))
def test_what_comes_from_outside_stays_text(make_page, word: str) -> None:
    """The same elements with the same kinds of attributes, whatever things are called."""
    as_long = "{}".join("x" * len(part) for part in word.split("{}"))
    calm, wild = (Reader(render_page(make_page(each))) for each in (as_long, word))
    assert [tag for tag, _ in wild.elements] == [tag for tag, _ in calm.elements]
    kinds = [[{*attributes} for _, attributes in reader.elements] for reader in (wild, calm)]
    assert kinds[0] == kinds[1]
    told = "".join(wild.text)
    spelled = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in word)
    for name in ("title", "lead", "note", "machine", "distill report", "how sure", "why", "recipe"):
        assert spelled.replace("{}", name) in told, name


def test_it_asks_nobody_for_anything(make_page) -> None:
    for tag, attributes in Reader(render_page(make_page())).elements:
        assert not [name for name in attributes if name.startswith("on") or name in ("style", "srcset", "action")], tag
        for name in ("src", "href", "data", "poster"):
            assert (attributes.get(name) or "data:").startswith(("data:", "#"))


def test_the_policy_allows_what_is_written_here_and_nothing_else(make_page) -> None:
    text = render_page(make_page())
    (policy,) = [each["content"] for each in Reader(text).of("meta") if each.get("http-equiv")]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["img-src"] == "data:"
    for tag in ("style", "script"):
        (content,) = re.findall(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert rules[f"{tag}-src"] == f"'sha256-{digest}'"


def test_every_picture_says_in_words_what_it_shows(make_page) -> None:
    reader = Reader(render_page(make_page()))
    pictures = [each for each in reader.of("svg") if each.get("role") == "img"]
    # three costs, two curves, two losses, two calibrations, risk, corrupted images, confusion, errors
    assert len(pictures) == 13
    assert all(len(each["aria-label"] or "") > 20 for each in pictures)
    assert all(each.get("role") == "img" or each.get("aria-hidden") == "true" for each in reader.of("svg"))
    assert all(each["alt"] for each in reader.of("img"))


def test_colours_of_errors_against_coverage_are_told_beside_them(make_page) -> None:
    page = make_page()
    part = render_page(page).split('<section id="calibration">')[1].split("</section>")[0]
    (legend,) = re.findall(r'<ul class="legend">(.*?)</ul>', part, re.DOTALL)
    assert [each.label for each in page.members if each.risk_coverage and each.label not in legend] == []
    assert "Numbers of test images" in render_page(page)


def test_text_in_pictures_is_text(make_page) -> None:
    svg = ET.fromstring(str(charts.cost(make_page().members, "params")))
    words = [each.text for each in svg.iter("text")]
    assert {"big", "small0", "parameters (log)"} <= set(words)


def test_validation_is_told_where_there_was_one(make_page) -> None:
    page = make_page()
    assert "Validation images picked" in render_page(page)
    without = tuple(
        replace(each, curves={key: value for key, value in each.curves.items() if not key.startswith("val_")})
        for each in page.members
    )
    assert "Validation images picked" not in render_page(replace(page, members=without))


def test_names_are_written_whole_or_left_to_the_legend(make_page) -> None:
    for word, students in (("{} of a name that is far too long to stand there", 1), ("{}", 9)):
        members = make_page(word, students=students).members
        words = [each.text for each in ET.fromstring(str(charts.cost(members, "params"))).iter("text")]
        assert not [text for text in words if text and ("big" in text or "small" in text)]


def test_what_is_not_there_is_said(make_page) -> None:
    bare = replace(
        make_page(), pair=None, hardest=(), chains=(), steps=(), missing={"pair": "no teacher", "hardest": "no images"}
    )
    told = "".join(Reader(render_page(bare)).text)
    assert "Not measured: no teacher." in told
    assert "Not measured: no images." in told


def test_a_large_page_stays_below_two_megabytes_and_says_what_it_left_out(make_page) -> None:
    page = make_page(epochs=1000, seeds=10, students=30)
    huge = replace(page.hardest[0], png=b"\x89" * 200_000)
    text = render_page(replace(page, hardest=(huge,) * 20))
    assert len(text.encode()) < MAX_BYTES
    assert "left out: the page would be larger than 2 MB" in text
    assert text.count("<polyline") > 30  # curves, thinned, are still there


def test_cells_are_sorted_by_number_and_missing_ones_have_none(make_page, make_row) -> None:
    members = make_page(students=2).members
    by_head = {column.head: column for column in columns(members)}
    assert [cell.value for cell in by_head["parameters"].cells] == [900_000.0, 90_000.0, 90_001.0]
    assert by_head["test top-1"].cells[0].text == "95.00"
    assert by_head["test top-1"].cells[0].below == "94.00 to 96.00"
    assert "verdict" not in by_head  # nothing was held against a baseline
    reader = Reader(render_page(make_page(students=2)))
    assert "900000.0" in [each.get("data-value") for each in reader.of("td")]


def test_corrupted_images_are_compared_where_they_are_the_same(make_page) -> None:
    members = make_page(students=2).members
    other = replace(members[2], corruptions=replace(members[2].corruptions, images_key="others"))
    assert [each.label for each, _ in trust.comparable((*members[:2], other))] == ["big", "small0"]
    svg = ET.fromstring(str(trust.corrupted(members)))
    assert "clean, 40.0% at 5" in svg.get("aria-label")
    assert trust.corrupted(tuple(replace(each, corruptions=None) for each in members)) is None
    assert trust.risk(tuple(replace(each, risk_coverage=None) for each in members)) is None


def test_heads_of_narrow_columns_break_between_words(make_page) -> None:
    html = render_page(make_page("{}_<taught>_twice"))
    assert '<th scope="col" class="fold">big_<wbr>&lt;taught&gt;_<wbr>twice</th>' in html


# Words


def test_the_verdict_says_better_worse_or_what_would_tell(make_row: Callable) -> None:
    held = {"baseline": "b", "baseline_method": "paired seeds", "baseline_n": 3, "baseline_p": 0.01}
    better = make_row("s", "student", 0.9, baseline_difference=0.02, baseline_low=0.01, baseline_high=0.03,
                      baseline_verdict="better", **held)  # fmt: skip
    assert against(better, "s", "b").text == "s is better than b by 2.00 points."
    assert "+1.00 to +3.00" in against(better, "s", "b").detail
    unsure = replace(better, baseline_low=-0.01, baseline_verdict="cannot tell", baseline_needed=9)
    assert against(unsure, "s", "b").text == "s and b cannot be told apart: +2.00 points; about 9 seeds would tell."
    assert against(make_row("s", "student", 0.9), "s", "b") is None


def test_one_sentence_for_the_page(make_row: Callable) -> None:
    teacher = make_row("t", "teacher", 0.96, params=100_000)
    student = make_row("s", "student", 0.93, params=10_000, times_faster=0.5)
    told = kept(student, teacher, "s")
    assert told.text == (
        "s keeps 96.9% of its teacher's test accuracy with 10 times fewer parameters, "
        "but 2.0 times slower on one image."
    )
    assert lead("s", student, teacher, None, ["s", "t"]) == told.text
    assert lead(None, None, None, None, ["a", "b", "c"]) == "3 models side by side: a, b, c."
    assert lead("s", student, None, None, ["s"]) == "s is right on 93.00% of the test images."


# Drawing


@pytest.mark.parametrize(("low", "high"), [(0.9012, 0.9873), (0.0, 17.3), (-3.0, 2.0), (0.5, 0.500001)])
def test_ticks_lie_within_and_are_round(low: float, high: float) -> None:
    found = ticks(Scale(low, high, 0, 100), 6)
    assert 2 <= len(found) <= 6
    assert all(low - 1e-12 <= value <= high + 1e-12 for value in found)
    steps = {f"{b - a:.3e}"[0:4].rstrip("0").rstrip(".") for a, b in pairwise(found)}
    assert steps <= {"1", "2", "2.5", "5", "1.0", "2.0", "5.0"}


@pytest.mark.parametrize(("low", "high"), [(0.04, 0.6), (900, 120_000), (3.1, 3.2), (1e-4, 1e6)])
def test_log_ticks_lie_within(low: float, high: float) -> None:
    found = ticks(Scale(low, high, 0, 100, log=True), 6)
    assert 2 <= len(found) <= 6
    assert all(low <= value <= high for value in found)


def test_up_is_up_and_equal_values_have_a_place() -> None:
    scale = Scale.around([0.9, 0.95], 200, 10)
    assert scale(0.95) < scale(0.9)
    assert 10 <= Scale.around([0.5], 200, 10)(0.5) <= 200
    assert Scale.around([2.0], 0, 100, log=True)(2.0) == pytest.approx(50)


def test_the_front_goes_through_what_no_other_beats(make_page, make_row) -> None:
    members = make_page(students=3).members
    places = [(100, 0.9), (50, 0.95), (200, 0.97), (150, 0.93)]  # the second beats the first; the third the fourth
    members = tuple(
        replace(member, row=replace(member.row, params=x, test_top1=y))
        for member, (x, y) in zip(members, places, strict=True)
    )
    svg = ET.fromstring(str(charts.cost(members, "params")))
    (front,) = [each for each in svg.iter("polyline") if each.get("class") == "front"]
    marks = [each for each in svg.iter() if (each.get("class") or "").endswith(" dot")]
    centres = {(each.get("cx"), each.get("cy")) for each in marks if each.tag == "circle"}
    corners = {tuple(pair.split(",")) for pair in front.get("points").split()}
    assert len(corners & centres) == 2


def test_alternative_text_holds_no_control_characters() -> None:
    svg = Svg(1, 1, "a\x00b\ud800")
    assert "\x00" not in str(svg.markup())
    ET.fromstring(str(svg.markup()))


def test_rows_of_two_test_sets_are_in_no_picture_together(make_page) -> None:
    page = make_page(students=3)
    one, *others = page.members
    other = replace(one, row=replace(one.row, dataset="other_set", test_set="other 1", test_images=77))
    parted = replace(page, members=(other, *others))
    assert [[each.label for each in members] for _, members in charts.by_test_set(parted.members)] == [
        [one.label],
        [each.label for each in others],
    ]
    text = render_page(parted)
    cost = text.split('<section id="cost">')[1].split("</section>")[0]
    assert "other_set, 77 test images" in cost
    assert f"One row: {other.label}." in cost
    pictures = [each["aria-label"] for each in Reader(cost).of("svg") if each.get("role") == "img"]
    assert len(pictures) == 3
    assert not any(f"{other.label} " in picture for picture in pictures)
    assert "other_set" not in render_page(page)
