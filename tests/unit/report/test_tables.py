"""Tables: whole at every width, with the user's words as they are; CSV, JSON, SVG."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import replace
from xml.etree import ElementTree

import pytest
from rich.console import Console, RenderableType

from distill.report.comparison import comparison_csv, comparison_table
from distill.report.layout import Column, stacked
from distill.report.svg import comparison_svg
from distill.report.tables import doctor_table, dry_run_table, layers_table, models_table, recipes_table
from distill.results.figures import LayerCost
from distill.results.rows import Check, Comparison, DryRun, ModelRow, ModelSummary, RecipeRow, Row
from distill.text import MISSING, count, csv_text, duration, fixed, percent, plain

TEACHER = Row(
    "resnet152_cifar10",
    "teacher",
    "runs/resnet152_cifar10/001",
    "cifar10",
    "supervised",
    1,
    0.9721,
    params=58_156_618,
    gmacs=3.72,
    size_mb=232.9,
    latency_b1_ms=81.2,
    latency_b1_p90_ms=92.12,
    latency_b32_ms=1203.24,
    images_per_s=26.6,
    ece=0.021,
)
STUDENT = Row(
    "r18_small",
    "student",
    "runs/r18_small/003",
    "cifar10",
    "kd",
    3,
    0.95324,
    0.00123,
    -0.01889,
    4_935_242,
    0.402,
    19.83,
    9.83,
    11.2,
    101.3,
    316.4,
    0.015,
    0.9612,
)
COMPARISON = Comparison((TEACHER, STUDENT), "AMD EPYC", 2, {"torch": "2.15.0"}, ("two seeds are missing",), 50)
ROW_KEYS = """
name role run dataset objective seeds test_top1 test_top1_std delta_top1 params gmacs size_mb
latency_b1_ms latency_b1_p90_ms latency_b32_ms images_per_s ece agreement test_images
test_set teacher times_smaller times_faster runtime source_run agreement_source test_top1_low
test_top1_high on_front baseline
baseline_difference baseline_low baseline_high baseline_p baseline_method baseline_n baseline_verdict
baseline_needed test_balanced_accuracy test_macro_f1 measured_on throughput_batch latency_b1_calls
train_seeds test_top1_each baseline_p_holm
"""
NUMBERS = (
    "97.21",
    "95.32 ± 0.12 (n=3)",
    "\N{MINUS SIGN}1.89",
    "58,156,618",
    "4,935,242",
    "3.72",
    "0.402",
    "232.90",
    "81.20 / 92.12",
)
NUMBERS += ("9.83 / 11.20", "1,203.2", "101.3", "26.6", "316", "96.1", "2.1", "1.5")


def _text(renderable: RenderableType, width: int) -> str:
    console = Console(width=width, file=io.StringIO(), highlight=False, markup=False, emoji=False, force_terminal=False)
    console.print(renderable)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_no_number_is_cut_at_any_width(width: int) -> None:
    text = _text(comparison_table(COMPARISON, width), width)
    for number in NUMBERS:
        assert number in text
    assert "…" not in text
    assert max(len(line.rstrip()) for line in text.splitlines()) <= width
    for words in ("AMD EPYC, 2 threads", "50 calls", "torch 2.15.0", "note: two seeds are missing", "n seeds"):
        assert words in " ".join(text.split())


def test_a_wide_screen_gets_one_table_and_a_narrow_one_a_few() -> None:
    tables = [_text(comparison_table(COMPARISON, width), width).count("recipe ") for width in (200, 120, 80)]
    assert tables == [1, 2, 3]


def test_every_part_is_led_by_the_name() -> None:
    lines = _text(comparison_table(COMPARISON, 80), 80).splitlines()
    assert sum(line.startswith("r18_small ") for line in lines) == 3


def test_columns_that_nobody_measured_are_left_out() -> None:
    bare = Comparison((Row("a", "student", "runs/a/001", "digits", "kd", 1, 0.5),), "cpu", 1)
    text = _text(comparison_table(bare, 120), 120)
    assert "latency" not in text
    assert "agreement" not in text
    assert "50.00" in text


def test_long_names_are_folded_not_cut() -> None:
    name = "x" * 64
    bare = Comparison((Row(name, "student", "runs/a/001", "digits", "kd", 1, 0.5),), "cpu", 1)
    text = _text(comparison_table(bare, 80), 80)
    assert text.count("x") == 64


def test_an_empty_comparison_says_so() -> None:
    assert "no finished runs" in _text(comparison_table(Comparison((), "cpu", 1), 80), 80)


def test_words_of_users_are_not_markup() -> None:
    row = Row("[red]a[/]", "student", "runs/a/001", "\x1b[31mred", "kd", 1, 0.5)
    text = _text(comparison_table(Comparison((row,), "[bold]cpu[/]", 1, {}, ("[b]note",)), 120), 120)
    for words in ("[red]a[/]", "\\x1b[31mred", "[bold]cpu[/]", "[b]note"):
        assert words in text
    assert "\x1b" not in text


def test_json_is_the_contract() -> None:
    document = json.loads(json.dumps(COMPARISON.to_json()))
    assert {"rows", "device", "threads", "versions"} <= set(document)
    assert list(document["rows"][0]) == ROW_KEYS.split()
    assert document["rows"][1]["test_top1"] == 0.95324
    assert document["rows"][0]["agreement"] is None


def test_csv_has_every_digit_and_no_formula() -> None:
    rows = (STUDENT, Row('=HYPERLINK("x")', "student", "-runs/a", "@d", "+kd", 1, -0.5))
    read = list(csv.DictReader(io.StringIO(comparison_csv(Comparison(rows, "cpu", 1)))))
    assert read[0]["test_top1"] == "0.95324"
    assert read[0]["delta_top1"] == "-0.01889"
    assert [read[1][key] for key in ("name", "run", "dataset", "objective")] == [
        '\'=HYPERLINK("x")',
        "'-runs/a",
        "'@d",
        "'+kd",
    ]
    assert read[1]["test_top1"] == "-0.5"
    assert read[1]["params"] == ""


def test_csv_neutralises_tabs_and_leaves_nan_empty() -> None:
    assert csv_text(("a", "b"), [("\tx", float("nan")), ("y", None)]) == "a,b\n'\tx,\ny,\n"


def test_svg_is_whole_the_same_every_time_and_fetches_nothing() -> None:
    picture = comparison_svg(COMPARISON)
    assert picture == comparison_svg(COMPARISON)
    ElementTree.fromstring(picture)
    assert not re.search(r"url\(\s*[\"']?https?:", picture)
    assert "@font-face" not in picture
    text = picture.replace("&#160;", " ")
    for number in NUMBERS:
        assert number in text
    wide = float(re.search(r'viewBox="0 0 ([0-9.]+)', picture)[1])
    assert wide / 12.2 < 125, "letters of 20 units are 14 pixels high or more where a page is 1000 wide"


MODELS = [
    ModelRow("r18_small", "student", "students: resnet", 4_935_242, 0.402, 32, 10),
    ModelRow("lenet", "baseline", "students: lenet", 62_006, 0.000651, 32, 10),
]


@pytest.mark.parametrize("width", [50, 80, 120])
def test_models(width: int) -> None:
    text = _text(models_table(MODELS, width), width)
    for words in ("r18_small", "4,935,242", "62,006", "0.000651", "32x32"):
        assert words in text
    assert ("students: resnet" in text) == (width >= 80)


def test_layers() -> None:
    summary = ModelSummary(MODELS[0], (LayerCost("stem.0", "Conv2d", (1, 64, 32, 32), 1728, 1_769_472),))
    text = _text(layers_table(summary, 80), 80)
    staged = replace(summary, stages={"stem": (64, 32, 32), "pooled": (256,)})
    assert "stages for objective.features: stem 64x32x32, pooled 256" in _text(layers_table(staged, 80), 80)
    for words in ("stem.0", "Conv2d", "1x64x32x32", "1,728", "1,769,472", "4,935,242 parameters", "0.402 GMACs"):
        assert words in text


def test_recipes_leave_out_what_has_no_room() -> None:
    row = RecipeRow(
        "resnet152_cifar10_" + "x" * 10, "student", "cifar100", "wide_resnet50", "supervised", "y" * 20, 200, ""
    )
    wide, narrow = (_text(recipes_table([row], width), width) for width in (120, 80))
    assert "wide_resnet50" in wide
    assert "y" * 20 in wide
    assert "200" in narrow
    assert narrow.count("role") == 1


def test_dry_run() -> None:
    dry = DryRun(
        "r18",
        "student",
        "cifar10",
        "cpu",
        "fp32",
        45_000,
        5000,
        (128, 3, 32, 32),
        (128, 10),
        4_935_242,
        5_000_000,
        0.4,
        352,
        200,
        812.3,
        0.5,
        35_200.0,
        "runs/t/001",
        ("[x] note",),
    )
    text = _text(dry_run_table(dry), 80)
    for words in ("128x3x32x32 -> 128x10", "4,935,242 of 5,000,000", "812 MB", "500.0 ms", "9h46m", "[x] note"):
        assert words in text


def test_doctor() -> None:
    checks = [
        Check("core", "torch", "broken", "does not load", "pip install torch"),
        Check("data", "digits", "ok", "[here]"),
    ]
    text = _text(doctor_table(checks), 80)
    for words in ("core", "broken", "pip install torch", "[here]"):
        assert words in text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0s"),
        (59.9, "59.9s"),
        (59.96, "1m00s"),
        (3599.6, "1h00m"),
        (3600 * 47.99, "47h59m"),
        (1e6, "11d13h"),
        (None, MISSING),
        (float("nan"), MISSING),
    ],
)
def test_durations(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


def test_numbers() -> None:
    assert (fixed(None, 2), fixed(1234.5, 1), percent(0.5), count(4_935_242.0)) == (
        MISSING,
        "1,234.5",
        "50.00",
        "4,935,242",
    )


def test_plain_spells_out_control_characters_only() -> None:
    assert plain("a\tb\nc\x1b[0m é 日本") == "a\\tb\\nc\\x1b[0m é 日本"
    plain("\udcff").encode()


PATHS = [f"/home/somebody/pictures/of_the_summer/cats-and-dogs/holiday_2024/IMG_0000{n}.jpeg" for n in range(2)]


@pytest.mark.parametrize("width", [30, 60, 80, 100, 120, 10_000])
def test_a_long_path_is_whole_or_broken_behind_a_separator(width: int) -> None:
    columns = [Column("file", PATHS), Column("top 1", ["99.0% a cat", "51.2% a dog"], words=True)]
    lines = [line.split(" ")[0] for line in _text(stacked(columns, width), width).splitlines()[2:]]
    assert "".join(lines) == "".join(PATHS)
    fits = width >= len(PATHS[0]) + 2 + len("99.0% a cat")
    assert (lines == PATHS) == fits
    assert {line[-1] for line in lines if not line.endswith("jpeg")} <= set("/_-.")


def test_a_name_without_separators_is_still_shown_whole() -> None:
    shown = _text(stacked([Column("file", ["x" * 90]), Column("top 1", ["99.0%"])], 60), 60)
    assert shown.count("x") == 90


@pytest.mark.parametrize("width", range(20, 90))
def test_an_interval_stays_beside_its_value_where_columns_move_below(width: int) -> None:
    columns = [
        Column("recipe", ["r18"]),
        Column("dataset", ["cifar10"]),
        Column("top-1", ["93.90"]),
        Column("interval", ["93.1 to 94.2"], joins=True),
        Column("params", ["1,971,352"]),
        Column("change", ["+0.31"]),
        Column("interval", ["-0.2 to +0.8"], joins=True),
        Column("verdict", ["cannot tell"]),
    ]
    heads = [line.split() for line in _text(stacked(columns, width), width).splitlines() if "recipe" in line]
    assert [head for line in heads for head in line if head != "recipe"] == [each.head for each in columns[1:]]
    room = width - min(6, max(width // 2, 8))  # behind the first column
    for line in heads:
        for place, head in enumerate(line):
            if head == "interval" and room >= 2 * 2 + 6 + 12:
                assert line[place - 1] in ("top-1", "change")
