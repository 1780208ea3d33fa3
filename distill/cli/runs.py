"""``distill runs``: what is there, and taking it away."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from distill.cli import completion, options
from distill.cli.output import Output
from distill.errors import UsageError
from distill.files import expanded
from distill.text import counted

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="List and remove runs.")


@app.command("list", epilog=options.examples("distill runs list", "distill runs list --json"))
def list_(*, runs: options.RunsOption = Path("runs"), json: options.JsonOption = False) -> None:
    """Show every run: status, epochs, size, and which runs need it."""
    from distill.report.runs import runs_table
    from distill.runs.find import list_damaged
    from distill.runs.remove import describe_runs

    rows = describe_runs(runs)
    output = Output(json=json)
    output.show([row.to_json() for row in rows] if json else rows, lambda width: runs_table(rows, width))
    for _, error in list_damaged(runs):
        output.note(f"left out: {error.message}")


@app.command("remove", epilog=options.examples("distill runs remove tiny_student/002", "distill runs remove old --yes"))
def remove(
    *,
    references: Annotated[
        list[str],
        typer.Argument(
            metavar="RUNS",
            help="Run folders; a name with a number (student/002); only a name, or its folder: all its runs.",
            show_default=False,
            autocompletion=completion.complete_runs,
        ),
    ],
    runs: options.RunsOption = Path("runs"),
    yes: options.YesOption = False,
) -> None:
    """Delete runs, with their checkpoints and banks. Runs that a remaining run needs are not deleted."""
    from distill.report.runs import runs_table
    from distill.runs import open_run
    from distill.runs.find import runs_in
    from distill.runs.remove import check_removable, describe_runs, remove_runs

    chosen = {}
    for reference in references:
        folders = [runs / reference, expanded(reference)] if reference else []
        all_of_a_name = next((found for folder in folders if (found := runs_in(folder))), [])
        trials = next((each / "trials" for each in folders if runs_in(each / "trials")), None)
        if trials is not None and not all_of_a_name:
            raise UsageError(f"{reference} is a sweep or a search", hint=f"its runs: distill runs remove {trials}")
        for run in all_of_a_name or [open_run(reference, runs_dir=runs, finished=False)]:
            chosen[run.path.resolve()] = run
    rows = describe_runs(runs, list(chosen.values()))
    output = Output(json=False)
    output.table(lambda width: runs_table(rows, width))
    check_removable(list(chosen.values()), runs_dir=runs)
    if not yes:
        output.confirm_deletion(counted(len(chosen), "run"), [str(run.path) for run in chosen.values()])
    freed = remove_runs(list(chosen.values()), runs_dir=runs)
    output.note(f"deleted {counted(len(freed), 'run')}, {sum(n for _, n in freed) / 1e6:,.1f} MB")
