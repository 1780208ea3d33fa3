"""From a card's content to Markdown with Hugging Face's metadata block on top."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from distill.report.card.content import Card
from distill.results.corruptions import CORRUPTION_NAMES
from distill.text import MISSING, count, counted, duration, fixed, percent, plain

__all__ = ["MARK", "escaped", "render_card"]

MARK = "<!-- made by distill card -->"
"""How a card says what made it: only such a file is replaced."""

_SPECIAL = re.compile(r"([\\`*_\[\]<>&|~$@^]|:(?=//)|(?<=www)\.)", re.IGNORECASE)
_AT_START = re.compile(r"^(\s*\d*)([#+\-=:.)])")  # of a line, where it would be a heading, a list, a rule
_NOTHING = {"null", "[]", "false", "0", "0.0"}
_MAX_CLASSES = 50


class _Ours(str):
    """Markdown of our own making, which is not escaped."""

    __slots__ = ()


def escaped(text: object) -> str:
    r"""Text that Markdown and HTML take for nothing but text, on one line.

    >>> escaped("<b>*a*|")
    '\\<b\\>\\*a\\*\\|'
    """
    return _AT_START.sub(r"\1\\\2", _SPECIAL.sub(r"\\\1", plain(text)))


def render_card(card: Card) -> str:
    """The card; blanks are said as blanks."""
    environment = Environment(
        loader=PackageLoader("distill.report.card", "."),
        autoescape=False,  # it is no HTML: every expression is escaped for Markdown by finalize
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=_shown,
    )
    environment.filters |= {
        "code": _code,
        "fence": _fence,
        "count": _of(count),
        "counted": counted,
        "percent": _of(percent),
        "fixed": _of(fixed),
        "duration": _of(duration),
        "points": _of(lambda share: MISSING if share is None else f"{100 * share:+.2f}"),
    }
    environment.globals |= {"corruption_names": CORRUPTION_NAMES}
    body = environment.get_template("card.md.jinja").render(
        card=card,
        row=card.member.row,
        run=card.member.provenance[-1],
        worst=sorted((each for each in card.result.per_class if each.n), key=lambda each: each.accuracy)[:5],
        missed=sum(1 for each in card.result.per_class if each.n and each.accuracy < 1),
        confusions=card.result.top_confusions(5),
        shown_classes=card.classes[:_MAX_CLASSES],
        mark=_Ours(MARK),
        settings=lambda prefix: _settings(card, prefix),
        loading=_Ours(_loading(card)),
        predicting=_fence(f"distill predict {shlex.quote(card.place)} photo.png", "sh"),
    )
    return f"---\n{_metadata(card)}---\n\n{body}"


def _shown(value: Any) -> Any:
    """What the template prints: its own Markdown as it is, everything else escaped; a dash for what is not there."""
    if value is None:
        return MISSING
    return value if isinstance(value, _Ours) else escaped(value)


def _of(show: Any) -> Any:
    return lambda *args: _Ours(show(*args))


def _code(text: object) -> _Ours:
    """Words as code: in as many backticks as it takes."""
    words = plain(text)
    ticks = "`" * (1 + max(map(len, re.findall("`+", words)), default=0))
    gap = " " if words.startswith("`") or words.endswith("`") else ""
    words = words.replace("|", "\\|")  # a table's cells end at it, code or not
    return _Ours(f"{ticks}{gap}{words}{gap}{ticks}")


def _fence(text: str, language: str = "") -> _Ours:
    """Lines as a block of code."""
    ticks = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    lines = "\n".join(plain(line) for line in text.rstrip("\n").split("\n"))
    return _Ours(f"{ticks}{language}\n{lines}\n{ticks}")


def _settings(card: Card, prefix: str) -> _Ours:
    """What a section of the recipe sets; what is off is left to the recipe below."""
    own = {key.removeprefix(prefix): value for key, value in card.recipe.items() if key.startswith(prefix)}
    off = tuple(f"{key.removeprefix(prefix)}." for key in card.off if key.startswith(prefix))
    told = [
        f"{escaped(key)} {_code(value)}"
        for key, value in own.items()
        if value not in _NOTHING and not f"{key}.".startswith(off)
    ]
    return _Ours(", ".join(told) if told else "none")


def _loading(card: Card) -> str:
    """Lines that load the model and ask it."""
    shape = f"3, {card.side}, {card.side}"
    if card.is_file:
        lines = (
            "import numpy as np\nimport onnxruntime\n",
            f"session = onnxruntime.InferenceSession({Path(card.place).name!a})",
            f"images = np.zeros((1, {shape}), np.uint8)  # RGB, 0 to 255: scaling is in the file",
            '(logits,) = session.run(["logits"], {"images": images})',
        )
    else:
        lines = (
            "import torch\nfrom distill import load_model\n",
            f"model = load_model({card.place!a})",
            f"images = torch.zeros(1, {shape}, dtype=torch.uint8)  # RGB, 0 to 255",
            "logits = model.logits(images)  # in the order of model.classes",
        )
    return _fence("\n".join(lines), "python")


def _metadata(card: Card) -> str:
    """Hugging Face's block, by their own library: what a hub shows and searches. A license is the author's to state."""
    from huggingface_hub import EvalResult, ModelCardData

    row = card.member.row
    dataset = card.hub_dataset or row.dataset
    of = ("of these weights alone", f"mean of {row.seeds} seeds")
    results = [
        EvalResult(
            task_type="image-classification",
            dataset_type=dataset,
            dataset_name=row.dataset,
            dataset_split="test",
            metric_type=kind,
            metric_name=f"{name}, {of[kind == 'accuracy']}" if row.seeds > 1 else name,
            metric_value=value,
        )
        for kind, name, value in (
            ("accuracy", "top-1", row.test_top1),
            ("f1", "macro F1", card.result.macro_f1),
            ("expected_calibration_error", "ECE, 15 bins", card.result.ece),
        )
        if value is not None
    ]
    tags = ["image-classification", "distill"] + (["knowledge-distillation"] if card.teacher else [])
    if card.is_file:
        tags += ["onnx"] + (["int8"] if (row.runtime or "").endswith("int8") else [])
    data = ModelCardData(
        model_name=row.name,
        library_name="onnx" if card.is_file else "distill",
        pipeline_tag="image-classification",
        tags=tags,
        datasets=[card.hub_dataset] if card.hub_dataset else None,
        metrics=["accuracy", "f1"],
        eval_results=results,
    )
    return f"{data.to_yaml()}\n".replace("\r", "")
