"""Model cards: what Hugging Face's library and a Markdown parser read in them."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt

from distill.report.card.content import Card
from distill.report.card.render import escaped, render_card
from distill.results.corruptions import CORRUPTIONS, SEVERITIES, CorruptedTop1, CorruptionResult
from distill.results.figures import Figures, Latency
from distill.results.metrics import EvalResult, PerClass

HOSTILE = [
    "<script>alert(1)</script>{}",
    "</summary></details><img src=x onerror=alert(1)>{}",
    "[{}](javascript:alert(1))",
    "`{}```",
    "| a | {} |",
    "# {}",
    "- {}: &lt;",
    "--- {}",
    "http://127.0.0.1/{} www.example.invalid",
    "*{}* _x_ ~~y~~ $z$ @someone",
    "1. {}",
    "{{ 7 * 7 }}{}",
    "a\n\n# b{}\x1b[31m",
    "'\": !!python/object {}",
]


def result(word: str = "{}") -> EvalResult:
    classes = tuple(
        PerClass(word.replace("{}", name), 0.9, right, 0.9, right, 50) for name, right in (("cat", 0.8), ("dog", 1.0))
    )
    return EvalResult(0.9, None, 0.9, 0.9, 0.9, 0.3, 0.02, 100, classes, ((40, 10), (0, 50)))


@pytest.fixture
def make_card(make_page: Callable) -> Callable[..., Card]:
    def make(word: str = "{}", **more: object) -> Card:
        member = make_page(word).members[1]

        def named(text: str) -> str:
            return word.replace("{}", text)

        values = {
            "member": member,
            "place": named("runs/x/001"),
            "is_file": False,
            "result": result(word),
            "classes": (named("cat"), named("dog")),
            "side": 32,
            "images": {"training": 900, "test": 100},
            "recipe": {"optim.lr": "0.1", "objective.kind": named("kd"), "augment.mixup.alpha": "0.0",
                       "augment.mixup.probability": "1.0", "train.ema": "null"},
            "recipe_text": named("name: x") + "\n",
            "device": named("machine"),
            "threads": 1,
            "off": ("augment.mixup",),
            "versions": {named("torch"): named("2")},
            "teacher": named("big"),
            "notes": (named("note"),),
        }  # fmt: skip
        return Card(**(values | more))

    return make


class Tags(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, tuple[str, ...]]] = []
        self.text: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, tuple(name for name, _ in attrs)))

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def body(card: Card) -> Tags:
    """What a renderer that lets HTML through makes of the card below its metadata."""
    text = ModelCard(render_card(card)).text
    return Tags(MarkdownIt("commonmark", {"html": True}).enable("table").render(text))


def test_the_hub_reads_name_task_dataset_and_results(make_card) -> None:
    row = replace(
        make_card().member.row, seeds=3, test_top1_std=0.01, dataset="cifar10", delta_top1=-0.02, agreement=0.9
    )
    card = replace(make_card(hub_dataset="uoft-cs/cifar10"), member=replace(make_card().member, row=row))
    data = ModelCard(render_card(card)).data
    assert data.pipeline_tag == "image-classification"
    assert data.datasets == ["uoft-cs/cifar10"]
    assert data.license is None
    assert "knowledge-distillation" in data.tags
    accuracy = data.eval_results[0]
    assert (accuracy.metric_type, accuracy.metric_value) == ("accuracy", row.test_top1)
    assert accuracy.metric_name == "top-1, mean of 3 seeds"
    assert accuracy.dataset_split == "test"
    assert {each.metric_name.partition(", ")[2] for each in data.eval_results[1:2]} == {"of these weights alone"}
    text = render_card(card)
    assert text.count("mean of 3 seeds") == 5  # the block, the sentence, accuracy, difference, agreement
    assert f"; of these weights {100 * card.result.top1:.2f}%" in text
    assert "mean of" not in render_card(make_card())


def test_throughput_says_of_which_batches_it_is(make_card) -> None:
    times = {size: Latency(size, 2.0, 3.0, 9) for size in (1, 32, 256)}
    for sizes in ((1, 32), (1, 32, 256)):
        row = make_card().member.row.with_figures(Figures(latency_ms={size: times[size] for size in sizes}))
        text = render_card(replace(make_card(), member=replace(make_card().member, row=row)))
        assert f"| in batches of {sizes[-1]} | {500 * sizes[-1]:,} images/s |" in text


@pytest.mark.parametrize("word", HOSTILE, ids=range(len(HOSTILE)))
def test_what_comes_from_outside_stays_text(make_card, word: str) -> None:
    calm, wild = body(make_card()), body(make_card(word))
    assert wild.tags == calm.tags
    told = "".join(wild.text)
    spelled = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in word)
    for name in ("cat", "machine", "big", "note"):
        assert spelled.replace("{}", name) in told, name
    data = ModelCard(render_card(make_card(word))).data
    assert data.model_name == word.replace("{}", "small0")


@pytest.mark.parametrize("text", ["plain words", "a_b", "1,234 (5)", "1.5", "-2", "+3"])
def test_ordinary_words_come_out_as_they_are(text: str) -> None:
    html = MarkdownIt("commonmark").renderInline(escaped(text))
    assert html == text


def test_blanks_are_said(make_card) -> None:
    card = make_card(teacher_sha256=None, corruptions=None)
    row = replace(card.member.row, latency_b1_ms=None, gmacs=None, delta_top1=None)
    bare = replace(card.member.provenance[-1], commit=None, device=None, weights=None)
    card = replace(card, member=replace(card.member, row=row, provenance=(bare,)))
    text = render_card(card)
    for line in (
        "| latency | not measured |",
        "| multiply-accumulates an image | not measured |",
        "| corrupted images (noise, blur, light, JPEG) | not measured |",
        "| teacher's weights, sha256 | not stated |",
        "| hardware | not stated |",
        "| commit | not stated |",
        "License: not stated.",
    ):
        assert line in text
    assert re.search(r"not measured: its teacher's answers", text)


def test_validation_is_told_where_there_was_one(make_card) -> None:
    assert "Validation images picked" not in render_card(make_card())
    assert "Validation images picked" in render_card(make_card(images={"training": 9, "validation": 3, "test": 3}))


def test_settings_that_are_off_are_left_to_the_recipe(make_card) -> None:
    text = render_card(make_card())
    assert "lr `0.1`" in text
    assert "| augmentation | none |" in text
    assert "ema" not in text


def test_jitter_that_leaves_the_hue_alone_is_told(make_card) -> None:
    recipe = {"augment.jitter.brightness": "0.4", "augment.jitter.hue": "0.0", "augment.jitter.probability": "1.0"}
    text = render_card(make_card(recipe=recipe, off=("augment.mixup",)))
    assert "| augmentation | jitter.brightness `0.4`, jitter.probability `1.0` |" in text.replace("\\", "")


def test_corruptions_are_a_table_where_they_were_measured(make_card) -> None:
    cells = tuple(
        CorruptedTop1(name, level, 0.9 - level / 10, 0.1, 0.9) for name in CORRUPTIONS for level in SEVERITIES
    )
    card = make_card(corruptions=CorruptionResult(100, 0.9, 0.6, 0.55, 0.65, cells, "k"))
    html = body(card)
    told = "".join(html.text)
    assert "60.00% in the mean of six corruptions at five severities, 90.00% of the same 100 clean" in told
    assert [tag for tag, _ in html.tags].count("table") == 1 + [tag for tag, _ in body(make_card()).tags].count("table")
    assert "90.0 | 80.0 | 70.0 | 60.0 | 50.0 | 40.0 |" in render_card(card)


def test_code_that_loads_it_is_code(make_card) -> None:
    import ast

    for is_file in (False, True):
        place = 'runs/it\'s "x" \\ `/001'
        text = render_card(make_card(place=place, is_file=is_file))
        (code,) = re.findall(r"```python\n(.*?)\n```", text, re.DOTALL)
        strings = [node.value for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Constant)]
        assert (Path(place).name if is_file else place) in strings
