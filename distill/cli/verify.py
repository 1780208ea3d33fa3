"""``distill verify``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from distill.cli import options
from distill.cli.output import Output
from distill.cli.progress import ProgressPrinter
from distill.errors import GateMissedError, MissingError
from distill.text import counted, several

if TYPE_CHECKING:
    from distill.results.checks import Verified

__all__ = ["EXAMPLES", "command"]

EXAMPLES = options.examples(
    "distill verify exports/r18_small_int8.onnx",
    "distill verify exports/r18_small_int8.onnx --no-latency --json",
)

_WHAT = "What to measure"
_HINT = "a busy machine is slower: try again, or allow more milliseconds by --slack"


def command(
    *,
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="A file with a certificate beside it.", show_default=False),
    ],
    certificate: Annotated[
        Path | None,
        typer.Option(
            "--certificate",
            metavar="FILE",
            help="The certificate.",
            show_default="<file>.certificate.json or certificate.json beside the file",
        ),
    ] = None,
    latency: Annotated[
        bool, typer.Option("--latency/--no-latency", help="Time the file.", rich_help_panel=_WHAT)
    ] = True,
    slack: Annotated[
        float,
        typer.Option(
            "--slack",
            min=0.0,
            metavar="S",
            help="Allowed slowdown from the certified latency, a fraction, beyond the noise of both measurements and "
            "the machine's pace, measured with a fixed graph.",
            rich_help_panel=_WHAT,
        ),
    ] = 0.1,
    seconds: options.TimingSecondsOption = 8.0,
    threads: Annotated[
        int | None,
        typer.Option(
            "--threads",
            min=1,
            metavar="N",
            help="CPU threads per operation while timing.",
            show_default="as certified",
            rich_help_panel="Machine",
        ),
    ] = None,
    json: options.JsonOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """Measure a certified file again on this machine, and report what holds.

    The file must be the certified one, and classify the same images correctly; its accuracy drop is judged again.
    Budgets are checked on this machine. Other latencies are judged on the certified machine, and only shown on
    another. Exits with 3 if something fails or the certificate was edited, with 4 if something could not be checked,
    for example without the images.
    """
    from distill.certificate import verify_file
    from distill.pipeline import Options
    from distill.report.certificate import verified_table

    output = Output(json=json, quiet=quiet)
    with ProgressPrinter(quiet=quiet) as printer:
        settings = Options(timing_threads=threads, command=options.typed(), on_event=printer)
        found = verify_file(
            file, certificate=certificate, latency=latency, slack=slack, seconds=seconds, options=settings
        )
    output.show(found, lambda width: verified_table(found, width))
    _end(found)


def _end(found: Verified) -> None:
    if found.fails:
        names = several([each.what for each in found.fails], 6)
        hint = _HINT if any(each.is_timed for each in found.fails) else None
        raise GateMissedError(f"{found.file}: does not hold here: {names}", hint=hint)
    if found.unchecked:
        first = found.unchecked[0]
        raise MissingError(
            f"{found.file}: {counted(len(found.unchecked), 'thing')} could not be checked; the first: {first.what}: "
            f"{first.why}",
            hint="what could be checked holds",
        )
