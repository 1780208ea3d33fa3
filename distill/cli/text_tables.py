"""Tables that are written as text, CSV or another: to which file, and at most one of them to stdout."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from distill.errors import UsageError
from distill.files import refuse_to_replace

__all__ = ["check_csv", "check_table", "one_document"]


def check_csv(csv: str | None, columns: Sequence[str], *, overwrite: bool) -> None:
    """Refuse a file at --csv that is no such table, before minutes of measuring.

    Args:
        csv: What --csv names.
        columns: The names of the table's columns. A file that begins with the first three is one, of any version.
        overwrite: Files may be replaced whatever they hold.

    Raises:
        UsageError: It would be lost, or is a folder.
    """
    check_table(csv, mark=",".join(columns[:3]), example="table.csv", overwrite=overwrite)


def check_table(target: str | None, *, mark: str, example: str, overwrite: bool) -> None:
    """Refuse a file that is no such table, before minutes of measuring.

    Args:
        target: A file; ``-`` and None are none.
        mark: What a table that distill wrote begins with.
        example: A name for the hint.
        overwrite: Files may be replaced whatever they hold.

    Raises:
        UsageError: It would be lost, or is a folder.
    """
    if target is None or target == "-":
        return
    path = Path(target)
    if path.is_dir():
        raise UsageError(f"{path} is a folder", hint=f"name a file: {path / example}")
    refuse_to_replace(
        path,
        ours=lambda there: not there or there.startswith(mark.encode()),
        why="is no such table of distill's",
        overwrite=overwrite,
    )


def one_document(*, json: bool, **tables: str | None) -> None:
    """Refuse to print two documents to stdout.

    Args:
        tables: What each option names that takes a file or ``-``: ``csv="-"``.

    Raises:
        UsageError: Two of --json, --csv - and the like.
    """
    printed = [*(["--json"] if json else []), *(f"--{name} -" for name, target in tables.items() if target == "-")]
    if len(printed) > 1:
        name = printed[1].split()[0]
        suffix = {"--latex": "tex", "--markdown": "md"}.get(name, "csv")
        raise UsageError(
            f"{printed[0]} and {printed[1]} both print to stdout", hint=f"name a file: {name} table.{suffix}"
        )
