"""How pictures are drawn: without a display, in colours that everyone can tell apart, the same bytes every time."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from distill.errors import UsageError
from distill.files import refuse_to_replace, write_export

__all__ = ["TRAIN_COLOR", "VAL_COLOR", "check_name", "check_suffix", "drawing", "fit", "label", "save"]

# Okabe and Ito's colours: told apart with every common kind of colour blindness, and in grey by their lightness.
TRAIN_COLOR, VAL_COLOR = "#0072B2", "#D55E00"

_STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#E3E3E3",
    "grid.linewidth": 0.7,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "savefig.dpi": 150,
    "svg.hashsalt": "distill",  # else every file has other ids
    "svg.fonttype": "path",  # the same letters on every machine
    "text.parse_math": False,  # a class may be called "$1"
}
_MARK = "Drawn by distill"
_TABLE_MARK = 'id="distill-clip-terminal"'  # of tables, which rich draws: the name that svg.py gives them is in its ids
# Shares of a figure of 6.4 by 3.8 inches, with a line of title, tick labels and one line below them; the pad in inches.
_LEFT, _RIGHT, _BOTTOM, _TOP, _PAD = 0.1, 0.9935, 0.1245, 0.9365, 0.04
# Who drew it, and no date: the same bytes every time.
_USUAL = "png"
_METADATA = {
    "svg": {"Date": None, "Creator": _MARK},
    "pdf": {"CreationDate": None, "Creator": _MARK},
    "png": {"Software": _MARK},
}


@contextmanager
def drawing() -> Iterator[None]:
    """A block in which figures get this style, whatever the user's matplotlibrc says."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        yield


def label(axes: Axes, title: str, *, x: str, y: str) -> None:
    """Set the title and the names of both axes."""
    axes.set_title(title)
    axes.set_xlabel(x)
    axes.set_ylabel(y)


def fit(figure: Figure, axes: Axes) -> None:
    """Give the only axes of a figure the room that their labels leave, before it is saved.

    What constrained layout finds by measuring every text several times and drawing all of it twice: that took most of
    the time of a short run. Its work remains where a power of ten stands above the axis, and moves the title up.
    """
    figure.subplots_adjust(left=_LEFT, right=_RIGHT, bottom=_BOTTOM, top=_TOP)
    box = axes.yaxis.get_tightbbox()
    if box is None or axes.yaxis.get_offset_text().get_text():
        figure.set_layout_engine("constrained")
        return
    figure.subplots_adjust(left=(axes.bbox.x0 - box.x0 + _PAD * figure.dpi) / figure.bbox.width)


def save(figure: Figure, path: Path) -> Path:
    """Write the figure, in the format that the name ends in, without a date in it.

    Raises:
        UsageError: The name ends in something else.
        DistillError: It cannot be written there.
    """
    kind = _kind(path)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Glyph \d+")  # a class named in Chinese gets boxes, and no alarm
        figure.savefig(buffer, format=kind, metadata=_METADATA[kind])
    write_export(path, buffer.getvalue())
    return path


def check_suffix(path: Path, *, only: str | None = None) -> None:
    """Refuse a name that no picture can have.

    Args:
        only: The one format that this picture comes in; None: any.

    Raises:
        UsageError: It ends in no format of pictures, or is a folder's.
    """
    if path.is_dir():
        raise UsageError(f"{path} is a folder", hint=f"name a file: {path / f'picture.{only or _USUAL}'}")
    if _kind(path) != (only or _kind(path)):
        raise UsageError(f"{path}: this picture is an .{only}", hint=f"for example {path.with_suffix(f'.{only}')}")


def check_name(path: Path, *, overwrite: bool = False, only: str | None = None) -> None:
    """Refuse a name that no picture can have, or that belongs to a file which distill did not draw.

    Args:
        overwrite: Files may be replaced whoever made them.
        only: The one format that this picture comes in; None: any.

    Raises:
        UsageError: It is refused; the hint says what to do.
    """
    check_suffix(path, only=only)
    marks = [mark.encode() for mark in (_MARK, _TABLE_MARK)]
    refuse_to_replace(
        path,
        ours=lambda there: any(mark in there for mark in marks),
        why="distill did not draw it",
        overwrite=overwrite,
    )


def _kind(path: Path) -> str:
    kind = path.suffix.lower().removeprefix(".")
    if kind not in _METADATA:
        raise UsageError(f"{path}: pictures are .svg, .png or .pdf", hint=f"for example {path.with_suffix('.svg')}")
    return kind
