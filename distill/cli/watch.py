"""``distill watch``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from distill.cli import completion, options
from distill.cli.output import Output, open_console
from distill.errors import RunError
from distill.text import counted

if TYPE_CHECKING:
    from rich.console import Console

    from distill.runs import RunFolder
    from distill.runs.follow import Seen

__all__ = ["EXAMPLES", "command"]

EXAMPLES = options.examples("distill watch", "distill watch r18_small/003 --every 10", "distill watch r18_small --once")


def command(
    *,
    run: Annotated[
        str | None,
        typer.Argument(
            metavar="RUN",
            help="A run folder, or a name (its latest run).",
            show_default="the active run started last",
            autocompletion=completion.complete_runs,
        ),
    ] = None,
    every: Annotated[
        float,
        typer.Option("--every", min=0.1, max=86_400.0, metavar="SECONDS", help="How often to read its files."),
    ] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="Show the current state and exit.")] = False,
    runs: options.RunsOption = Path("runs"),
) -> None:
    """Follow a run's curves in this terminal while another process trains it, also over ssh.

    Files are only read. It ends when the run does, with 1 if that failed or was stopped; Ctrl-C ends only the
    watching. Without a terminal on stdout, each epoch is printed as a line.
    """
    from distill.report.watch import epoch_lines
    from distill.runs.follow import follow, to_watch

    folder = to_watch(run, runs_dir=runs)
    console = open_console()
    seen: Seen | None = None
    if console.is_terminal:
        seen = _drawn(folder, console, every=every, once=once)
    else:
        told = 0
        output = Output()
        for seen in follow(folder, every_s=every):
            if lines := epoch_lines(seen, min(told, seen.done)):  # resumed, it may have fewer
                output.text("\n".join(lines))
            told = seen.done
            if once:
                break
    if seen is not None and seen.status == "finished" and seen.done == 0:
        Output().note(f"{folder} has no epochs: its weights were not trained here (averaged, cut or imported)")
    if seen is not None and seen.status in ("failed", "interrupted"):
        if seen.status == "failed":
            state = f"has failed{f': {seen.error}' if seen.error else ''}"
        else:
            state = f"was interrupted after {counted(seen.done, 'epoch')}, and is saved"
        raise RunError(f"{folder} {state}", hint=f"to continue: {folder.resume_command()}")


def _drawn(folder: RunFolder, console: Console, *, every: float, once: bool) -> Seen | None:
    """Curves that are drawn again and again in one place; what was there last stays on the screen."""
    from rich.live import Live

    from distill.report.watch import watch_view
    from distill.runs.follow import follow

    letters = console.color_system is None or not console.encoding.startswith("utf")
    seen = None
    with Live(console=console, auto_refresh=False, vertical_overflow="crop") as live:
        for seen in follow(folder, every_s=every):
            width, height = console.size
            live.update(watch_view(seen, width=width, height=height, letters=letters), refresh=True)
            if once:
                break
    return seen
