"""``distill doctor``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from distill.cli import options
from distill.cli.output import Output
from distill.errors import MissingError

__all__ = ["EXAMPLES", "command"]

EXAMPLES = options.examples("distill doctor", "distill doctor --data /datasets --json")


def command(
    *,
    data: Annotated[Path, typer.Option("--data", metavar="DIR", help="The folder to look for data sets in.")] = Path(
        "data"
    ),
    runs: options.RunsOption = Path("runs"),
    json: options.JsonOption = False,
) -> None:
    """Tell what this machine has: versions, devices, data, weights, optional packages.

    Exits with 4 only if distill itself cannot work.
    """
    from distill.report.doctor import examine
    from distill.report.tables import doctor_table

    checks = examine(data_root=data, runs_dir=runs)
    Output(json=json).show(checks, lambda _: doctor_table(checks))
    broken = [check.name for check in checks if check.status == "broken"]
    if broken:
        raise MissingError(f"distill cannot work without {', '.join(broken)}", hint="python -m pip install -U distill")
