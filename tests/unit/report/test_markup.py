"""Tables as Markdown, read back by a parser of it, and as LaTeX, read back by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from markdown_it import MarkdownIt

from distill.report.markup import LATEX_MARK, MARKDOWN_MARK, comparison_latex, comparison_markdown
from distill.results.rows import Comparison, Row

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
    params=4_935_242,
    gmacs=0.402,
    size_mb=19.83,
    images_per_s=316.0,
    test_top1_low=0.9441,
    test_top1_high=0.9624,
    baseline="runs/scratch/001",
    baseline_difference=-0.0052,
    baseline_low=-0.0113,
    baseline_high=0.0009,
    baseline_method="paired seeds",
    baseline_verdict="cannot tell",
)
FILE = replace(STUDENT, name="r18_small_int8", run="r18_small_int8.onnx", runtime="onnxruntime int8", source_run="r18")
ODD = r"a|b_c*d*`e`<f>&g\h$i$#j%k{l}^m~n\"o'"
HEADS = ["recipe", "test top-1, %", "95% interval", "Δ baseline, points", "95% interval of the difference", "verdict"]
HEADS += ["params", "GMACs", "size, MB"]
CELLS = ["95.32 ± 0.12 (n=3)", "94.41 to 96.24", "−0.52", "−1.13 to +0.09", "cannot tell"]  # noqa: RUF001
CELLS += ["4,935,242", "0.402", "19.83"]


def _comparison(*rows: Row) -> Comparison:
    return Comparison(rows, "AMD EPYC", 2, {"torch": "2.15.0"}, ("two of\nthree_seeds",), 50)


def _parsed(text: str) -> list[list[str]]:
    """The cells of a table, row by row, as a reader of the page sees them."""
    rows: list[list[str]] = []
    for token in MarkdownIt().enable("table").parse(text):
        if token.type == "tr_open":
            rows.append([])
        elif token.type == "inline" and rows and token.level > 3:
            rows[-1].append("".join(each.content for each in token.children or ()))
    return rows


def test_markdown_says_what_the_terminal_says_in_the_columns_of_a_readme() -> None:
    assert _parsed(comparison_markdown(_comparison(STUDENT))) == [HEADS, ["r18_small", *CELLS]]


def test_markdown_aligns_numbers_to_the_right() -> None:
    tokens = MarkdownIt().enable("table").parse(comparison_markdown(_comparison(STUDENT)))
    sides = [token.attrs.get("style", "") for token in tokens if token.type == "th_open"]
    words = {"recipe", "verdict"}
    assert sides == ["" if head in words else "text-align:right" for head in HEADS]


def test_below_a_markdown_table_stands_what_it_was_measured_on() -> None:
    text = comparison_markdown(_comparison(STUDENT))
    items = [each.content for each in MarkdownIt().enable("table").parse(text) if each.type == "inline"][-7:]
    assert items[0].startswith("AMD EPYC, 2 threads; latency of 50 calls")
    assert items[1] == "±: sample standard deviation over n seeds"
    assert items[-2:] == ["torch 2.15.0", r"note: two of\\nthree\_seeds"]


@pytest.mark.parametrize("write", [comparison_markdown, comparison_latex])
def test_a_table_says_how_it_was_made_and_has_no_columns_without_a_value(
    write: Callable[[Comparison], str],
) -> None:
    text = write(_comparison(replace(STUDENT, params=None, baseline=None, baseline_method=None, baseline_verdict=None)))
    assert text.startswith({comparison_markdown: MARKDOWN_MARK, comparison_latex: LATEX_MARK}[write])
    assert "params" not in text
    assert "baseline" not in text
    assert "images/s" not in text  # a terminal's table has it
    assert text.endswith("\n")


def test_two_data_sets_are_told_apart() -> None:
    other = replace(STUDENT, name="other", dataset="digits")
    rows = _parsed(comparison_markdown(_comparison(STUDENT, other)))
    assert [row[1] for row in rows] == ["dataset", "cifar10", "digits"]


def test_names_of_users_are_no_markup() -> None:
    name = _parsed(comparison_markdown(_comparison(replace(STUDENT, name=ODD))))[1][0]
    assert name == ODD
    row = comparison_latex(_comparison(replace(STUDENT, name=ODD))).split("\\midrule\n")[1].split("\n")[0]
    assert row.split(" & ")[0] == (
        r"a\textbar{}b\_c*d*\textasciigrave{}e\textasciigrave{}\textless{}f\textgreater{}\&g\textbackslash{}h\$i\$"
        r"\#j\%k\{l\}\textasciicircum{}m\textasciitilde{}n\textbackslash{}\textquotedbl{}o\textquotesingle{}"
    )


def test_two_hyphens_stay_two_in_latex_and_names_of_other_scripts_say_what_sets_them() -> None:
    text = comparison_latex(_comparison(replace(STUDENT, name="a--b---c")))
    assert "\na-{}-b-{}-{}-c & " in text
    assert "xelatex" not in text
    assert "for these names lualatex or xelatex" in comparison_latex(_comparison(replace(STUDENT, name="猫")))


def test_latex_is_a_table_of_booktabs() -> None:
    lines = comparison_latex(_comparison(STUDENT, FILE)).splitlines()
    assert lines[-9:] == [
        "% note: two of\\nthree_seeds",
        r"\begin{tabular}{llrrrrlrrr}",
        r"\toprule",
        r"recipe & runtime & test top-1, \% & 95\% interval & $\Delta$ baseline, points & "
        r"95\% interval of the difference & verdict & params & GMACs & size, MB \\",
        r"\midrule",
        r"r18\_small & -- & 95.32 $\pm$ 0.12 (n=3) & 94.41 to 96.24 & $-$0.52 & $-$1.13 to +0.09 & cannot tell"
        r" & 4,935,242 & 0.402 & 19.83 \\",
        r"\quad r18\_small\_int8 & onnxruntime int8 & 95.32 $\pm$ 0.12 (n=3) & 94.41 to 96.24 & $-$0.52"
        r" & $-$1.13 to +0.09 & cannot tell & 4,935,242 & 0.402 & 19.83 \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]
    assert all(line.startswith("%") for line in lines[:-8])


@pytest.mark.parametrize("write", [comparison_markdown, comparison_latex])
def test_what_explains_a_column_that_is_not_there_is_left_out(write: Callable[[Comparison], str]) -> None:
    text = write(_comparison(replace(STUDENT, on_front=True)))
    assert "front" not in text
    assert "95% interval: Wilson's" in text
