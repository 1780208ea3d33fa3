"""Tables of files that ship: what was written, what it was checked on, what was tried before it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.text import Text

from distill.report.comparison import comparison_table
from distill.report.layout import Column, key_values, stacked
from distill.report.verdict import drop_sentence
from distill.text import MISSING, count, counted, fixed, percent, signed

if TYPE_CHECKING:
    from distill.compression.candidate import CompressionCandidate, Int8File
    from distill.compression.choose import Attempt
    from distill.compression.results import Compressed, Exported, Imported, Pruned, Quantized, Soup
    from distill.evaluation.statistics import Interval

__all__ = [
    "compressed_table",
    "exported_table",
    "imported_table",
    "pruned_table",
    "quantized_table",
    "scheme_sentence",
    "soup_table",
]


def scheme_sentence(scheme: str, images: int) -> str:
    """How an int8 file was made: its scheme, and how many training images set its ranges; 0: not known."""
    ranges = f"{count(images)} training images set the ranges" if images else ""
    return "; ".join(filter(None, (scheme, ranges)))


def exported_table(made: Exported) -> RenderableType:
    """What was written and how it was checked."""
    parity = made.parity
    takes = "images, uint8 (N, 3, S, S)" + (f"; ONNX opset {made.opset}" if made.opset else "; torch.export program")
    if made.format == "timm":
        takes = f'what timm\'s own transforms give: timm.create_model("local-dir:{made.file}", pretrained=True)'
    same = f"{count(parity.images)} {parity.split} images: every class the same"
    pairs = [
        ("folder" if made.format == "timm" else "file", str(made.file)),
        ("from", str(made.run)),
        ("takes", takes),
        ("calibrated", "" if made.temperature is None else f"logits divided by {made.temperature:.4g}"),
        ("size", f"{made.size_mb:.2f} MB"),
        ("parity", f"{same}, logits within {parity.largest_difference:.1g} of the largest"),
    ]
    return key_values([pair for pair in pairs if pair[1]])


def quantized_table(made: Quantized, width: int) -> RenderableType:
    """The file, the verdict on its loss, and every attempt."""
    kept = made.kept
    faster = made.fp32_latency_b1_ms / made.latency_b1_ms if made.latency_b1_ms else float("nan")
    threads = counted(made.threads, "thread")
    times = f"{made.latency_b1_ms:.2f} ms, fp32 {made.fp32_latency_b1_ms:.2f} ms: {faster:.1f} times as fast"
    head = key_values(
        [
            ("file", str(made.file)),
            ("from", str(made.run)),
            *([] if made.trained is None else [("trained on", f"{made.trained}, quantisation-aware")]),
            ("scheme", scheme_sentence(made.scheme, made.calibration_images)),
            ("size", f"{made.size_mb:.2f} MB, fp32 {made.fp32_size_mb:.2f} MB"),
            ("batch 1", f"{times} ({threads}, in turn)"),
            (made.split, drop_sentence(kept.drop)),
        ]
    )
    gains = made.size_mb < made.fp32_size_mb or faster > 1
    small = "it is neither smaller nor faster than in fp32: so small a network gains nothing by int8"
    told = [] if gains else [Text(small, style="yellow")]
    return Group(head, *told, Text(), _attempts(made.attempts, width))


def pruned_table(made: Pruned, width: int) -> RenderableType:
    """The network before and after the cut, and what training on gave."""
    pair, trained = (made.before, made.after), made.run is not None
    times = [figures.latency_ms[1].median_ms for figures in pair]
    same = ["same"] * trained  # fine-tuning changes weights alone
    columns = [
        Column("", ["before", "cut", *["fine-tuned"] * trained], style="bold"),
        Column("params", [*(count(figures.params) for figures in pair), *same]),
        Column("GMACs", [*(fixed(figures.gmacs, 4) for figures in pair), *same]),
        Column("size\nMB", [*(fixed(figures.size_mb, 2) for figures in pair), *same]),
        Column("batch 1\nms", [*(fixed(each, 2) for each in times), *same]),
        Column(
            "val top-1\n%", [*(percent(each.val_top1) for each in pair), *[percent(made.trained_val_top1)] * trained]
        ),
    ]
    where = [
        ("from", str(made.source)),
        ("cut", f"{made.cut} ({made.criterion}, widths in multiples of {made.multiple})"),
    ]
    if made.run is not None:
        where.append(("fine-tuned", str(made.run)))
    return Group(key_values(where), Text(), stacked(columns, width))


def imported_table(made: Imported) -> RenderableType:
    """The run, where its weights are from, and how right they are."""
    how = "in their order" if made.by_order else "by name"
    images = f"{count(made.images)} {'validation' if made.split == 'val' else 'training'} images"
    return key_values(
        [
            ("run", str(made.run)),
            ("from", f"{made.checkpoint}, {made.entry}" if made.entry else str(made.checkpoint)),
            ("sha256", made.sha256),
            ("matched", f"{count(made.tensors)} tensors, {how}"),
            ("pixels", f"mean {_triple(made.mean)}, std {_triple(made.std)}, of {made.stated} (model.normalize)"),
            ("params", count(made.params)),
            (f"{made.split} top-1", f"{percent(made.top1)}% of {images}"),
        ]
    )


def _triple(values: tuple[float, ...]) -> str:
    return ", ".join(f"{each:.4g}" for each in values)


def soup_table(made: Soup, width: int) -> RenderableType:
    """Each run's accuracy and the mean's, and how sure the difference to the best one is."""
    members, against = made.members, made.against_best
    images = f"{count(made.images)} {'validation' if made.split == 'val' else 'training'} images"
    gain, low, high = (
        signed(each) for each in (against.difference.estimate, against.difference.low, against.difference.high)
    )
    head = [("run", str(made.run)), ("over the best alone", f"{gain} points [{low}, {high}] on {images}, paired")]
    columns = [
        Column("", [*(str(each.run) for each in members), "the mean"], style="bold"),
        Column(f"{made.split} top-1\n%", [*(percent(each.top1) for each in members), percent(made.top1)]),
        Column("", ["" if each.used else "left out" for each in members] + [""], words=True),
    ]
    return Group(key_values(head), Text(), stacked(columns, width))


def _attempts(attempts: tuple[Attempt, ...], width: int) -> RenderableType:
    drops = [each.drop.drop for each in attempts]
    columns = [
        Column(
            "scheme",
            [("trained on: " if each.trained else "") + each.scheme for each in attempts],
            words=True,
            style="bold",
        ),
        *_changes("Δ top-1\npoints", drops),
        Column("batch 1\nms", [fixed(each.latency_b1_ms, 2) for each in attempts]),
        Column("", ["kept" if each.kept else "" for each in attempts], words=True),
    ]
    return stacked(columns, width)


def compressed_table(made: Compressed, width: int) -> RenderableType:
    """Every cut that was tried, what ships, and the comparison of that with what it came from."""
    head = key_values(
        [
            ("ships", str(made.file)),
            ("in fp32", str(made.fp32)),
            ("val", drop_sentence(made.best.drop)),
            ("picture", str(made.plot)),
        ]
    )
    return Group(_candidates(made, width), Text(), head, Text(), comparison_table(made.comparison, width))


def _candidates(made: Compressed, width: int) -> RenderableType:
    def file_of(each: CompressionCandidate, cell: Callable[[Int8File], str]) -> str:
        return MISSING if each.shipped is None else cell(each.shipped)

    tried, drops = made.candidates, [each.drop.drop for each in made.candidates]
    columns = [
        Column("stays", ["all" if each.ratio == 1.0 else percent(each.ratio, 0) + "%" for each in tried], style="bold"),
        Column("params", [count(each.params) for each in tried]),
        Column("GMACs", [f"{each.gmacs:.3g}" for each in tried]),
        *_changes("Δ val\npoints", drops),
        Column("int8, MB", [file_of(each, lambda file: fixed(file.size_mb, 2)) for each in tried]),
        Column("batch 1\nms", [file_of(each, lambda file: fixed(file.latency_b1_ms, 2)) for each in tried]),
        Column("", [_word(each, made) for each in tried], words=True),
    ]
    return stacked(columns, width)


def _changes(title: str, drops: Sequence[Interval]) -> list[Column]:
    """Ours minus theirs, as where rows are compared: a loss is below zero."""
    return [
        Column(title, [signed(-drop.estimate) for drop in drops]),
        Column("95% interval", [f"{signed(-drop.high)} to {signed(-drop.low)}" for drop in drops], joins=True),
    ]


def _word(each: CompressionCandidate, made: Compressed) -> str:
    if each.shipped is None:
        return "too much lost"
    return f"least {made.goal}" if each.ratio == made.best.ratio else ""
