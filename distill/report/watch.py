"""A run that is at work, as a terminal shows it: how far it is, its curves, and what it last said."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from distill.events import EpochDone
from distill.report.braille import Series, curves
from distill.report.lines import epoch_line, loss_text
from distill.runs.follow import Seen
from distill.text import count, duration, plain

__all__ = ["epoch_lines", "watch_view"]

_TRAIN, _VAL = "cyan", "yellow"
_STATUS = {"running": "bold green", "finished": "bold", "interrupted": "bold yellow", "failed": "bold red"}
_MIN_LINES = 5  # lines of a picture
_MAX_LINES = 14


def watch_view(seen: Seen, *, width: int, height: int, letters: bool = False) -> RenderableType:
    """The run in at most ``width`` times ``height`` cells.

    Args:
        letters: Curves of letters, for terminals without colours or without Unicode.
    """
    side_by_side = width >= 90
    each = (width - 6) // 2 if side_by_side else width
    room = height - 7
    lines = max(min(room if side_by_side else room // 2, _MAX_LINES) - 2, _MIN_LINES)
    pictures = [
        _picture(seen, "loss", ("train_loss", "val_loss"), width=each, height=lines, letters=letters),
        _picture(seen, "top-1", ("train_top1", "val_top1"), width=each, height=lines, letters=letters),
    ]
    shown = [picture for picture in pictures if picture is not None]
    body: RenderableType = Text("no epoch has ended yet", style="dim")
    if shown and side_by_side:
        body = Table.grid(padding=(0, 3, 0, 0))
        body.add_row(*shown)
    elif shown:
        body = Group(*shown)
    last = loss_text(seen.metrics[-1]) if seen.metrics else ""
    foot = [Text(line, style="dim", no_wrap=True, overflow="crop") for line in (last, plain(seen.log)) if line]
    return Group(_head(seen), Text(), body, *foot)


def _head(seen: Seen) -> Text:
    fields = [f"epoch {count(seen.done)}/{count(seen.epochs)}"]
    if seen.timing and (speed := seen.timing[-1].get("images_per_s")):
        fields.append(f"{count(speed)} images/s")
    if seen.seconds_per_epoch is not None:
        fields.append(f"{duration(seen.seconds_per_epoch)} an epoch")
    if seen.status == "running":
        fields += [f"{duration(seen.left_s)} left"] if seen.left_s is not None else []
        fields += [f"last heard of {duration(seen.since_s)} ago"] if seen.since_s is not None else []
    if seen.error:
        fields.append(plain(seen.error.splitlines()[0]))
    status = (seen.status, _STATUS.get(seen.status, ""))
    text = Text.assemble((plain(seen.run), "bold"), "  ", status, "\n", "  ".join(fields))
    text.no_wrap, text.overflow = True, "crop"
    return text


def _picture(
    seen: Seen, name: str, keys: Sequence[str], *, width: int, height: int, letters: bool
) -> RenderableType | None:
    """One picture of a training and a validation curve; None where neither has a number."""
    looks = zip(keys, (_TRAIN, _VAL), ("t", "v"), strict=True)
    found = [(key, Series(_points(seen, key), style, letter)) for key, style, letter in looks]
    found = [(key, series) for key, series in found if series.points]
    if not found:
        return None
    values = [value for _, series in found for _, value in series.points]
    low, high = min(values), max(values)
    if low == high:
        low, high = low - 0.5 * abs(low or 1), high + 0.5 * abs(high or 1)
    share = name == "top-1"
    labels = {0: _number(high, share), height // 2: _number((low + high) / 2, share), height - 1: _number(low, share)}
    left = max(map(len, labels.values())) + 1
    drawn = curves(
        [series for _, series in found],
        width=max(width - left - 1, 10),
        height=height,
        x=(1, max(seen.epochs, seen.done, 2)),
        y=(low, high),
        letters=letters,
    )
    bar = "|" if letters else "│"
    lines = [
        Text.assemble((f"{labels.get(place, ''):>{left}}", "dim"), (bar, "dim"), line)
        for place, line in enumerate(drawn)
    ]
    return Group(_legend(name, found, share, letters), *lines)


def _legend(name: str, found: Sequence[tuple[str, Series]], share: bool, letters: bool) -> Text:
    text = Text.assemble((name, "bold"))
    text.no_wrap, text.overflow = True, "crop"
    for key, series in found:
        what = "validation" if key.startswith("val") else "training"
        mark = f" ({series.letter})" if letters else ""
        text.append(f"   {what}{mark} {_number(series.points[-1][1], share)}", style="" if letters else series.style)
        if key == "val_top1":
            best = max(series.points, key=lambda point: point[1])
            text.append(f" (best {_number(best[1], share)})", style="" if letters else series.style)
    return text


def _points(seen: Seen, key: str) -> list[tuple[int, float]]:
    return [
        (int(line["epoch"]), float(line[key]))
        for line in seen.metrics
        if line.get(key) is not None and line.get("epoch") is not None and math.isfinite(line[key])
    ]


def _number(value: float, share: bool) -> str:
    return f"{100 * value:.1f}%" if share else f"{value:.3g}"


def epoch_lines(seen: Seen, told: int) -> list[str]:
    """A plain line for each epoch after the first ``told``, as training itself prints them to a pipe."""
    lines, best = [], None
    for place, metrics in enumerate(seen.metrics):
        top1 = metrics.get("val_top1")
        is_best = top1 is not None and (best is None or top1 > best)
        best = top1 if is_best else best
        if place < told:
            continue
        timing = seen.timing[place] if place < len(seen.timing) else {}
        seconds = float(timing.get("seconds") or 0.0)
        numbers = {key: value for key, value in metrics.items() if value is not None}
        event = EpochDone(place + 1, numbers, seconds, float(timing.get("images_per_s") or 0.0), is_best)
        left = seconds * (seen.epochs - place - 1) if seconds else None
        lines.append(epoch_line(event, epochs=seen.epochs, best=best, left=left))
    return lines
