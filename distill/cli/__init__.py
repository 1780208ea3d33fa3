"""The command line: the app, its entry point, and what becomes of errors. Nothing here imports torch."""

from __future__ import annotations

import functools
import inspect
import io
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.models import CommandInfo

from distill.cli import (
    cache,
    card,
    certify,
    compare,
    compress,
    doctor,
    evaluate,
    export,
    import_weights,
    kit,
    models,
    options,
    predict,
    prune,
    quantize,
    quickstart,
    recipe,
    report,
    runs,
    search,
    similarity,
    soup,
    student,
    sweep,
    teacher_finetune,
    verify,
    watch,
)
from distill.cli.output import PLAINER, mute, show_error
from distill.errors import DistillError, stop_error
from distill.team.guard import guard_process
from distill.team.ranks import process_rank, under_torchrun
from distill.team.signals import end_on_signals, mark_exit_announced
from distill.team.watch import enable_faulthandler

__all__ = ["app", "main"]

_PATHS = ("FILE", "DIR", "OUT", "PATHS")  # what the values of options and arguments are
_TRAIN, _MEASURE, _SHIP, _LOOK = "Train", "Measure", "Ship", "Look around"


class _Commands(TyperGroup):
    """Several commands, whose ``--help`` takes no value."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        _hide_needless_types(self.get_params(ctx))
        super().format_help(ctx, formatter)


class _Group(_Commands):
    """The root of all commands: the one place where an error becomes a line and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except DistillError as error:
            raise _ended(error) from None
        except KeyboardInterrupt as stopped:
            raise _ended(stop_error(stopped)) from None
        except (typer.Exit, typer.Abort):  # RuntimeErrors too
            raise
        except (OSError, MemoryError, RuntimeError, TypeError) as error:
            if (error_lines := _told(error)) is None:
                raise
            raise _ended(error_lines) from None


def _hide_needless_types(params: Sequence[Any]) -> None:
    """No ``<bool>`` for what takes no value, and no ``<list[str]>`` for an argument that its name tells."""
    for param in params:
        if getattr(param, "is_flag", False) and param.metavar is None:
            param.metavar = ""
        elif param.param_type_name == "argument" and param.metavar is not None:
            param.display_type_rich = lambda **_: None


def _ended(error: DistillError) -> typer.Exit:
    """Say why the command ends."""
    show_error(error)
    mark_exit_announced(error.exit_code)
    return typer.Exit(error.exit_code)


def _told(error: Exception) -> DistillError | None:
    """The one line for what the machine refused; None for a bug of distill's own."""
    from distill.pipeline.failures import explain

    return explain(error)


app = typer.Typer(
    name="distill",
    cls=_Group,
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # a bug keeps Python's own traceback: short to read, whole to report
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="[bold]Examples[/]\n  distill quickstart\n  distill student --recipe r18_small && distill compare",
)


def _print_version(show: bool) -> None:
    if show:
        import distill
        from distill.runs import own_commit

        commit = own_commit()
        typer.echo(f"distill {distill.__version__}" + (f" ({commit})" if commit else ""))
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """Distill a large image classifier into a small one, and measure what was kept."""


app.command("quickstart", epilog=quickstart.EXAMPLES, rich_help_panel=_TRAIN)(quickstart.command)
app.command("teacher-finetune", epilog=teacher_finetune.EXAMPLES, rich_help_panel=_TRAIN)(teacher_finetune.command)
app.command("student", epilog=student.EXAMPLES, rich_help_panel=_TRAIN)(student.command)
app.command("sweep", epilog=sweep.EXAMPLES, rich_help_panel=_TRAIN)(sweep.command)
app.command("search", epilog=search.EXAMPLES, rich_help_panel=_TRAIN)(search.command)
app.command("import", epilog=import_weights.EXAMPLES, rich_help_panel=_TRAIN)(import_weights.command)
app.command("soup", epilog=soup.EXAMPLES, rich_help_panel=_TRAIN)(soup.command)
app.add_typer(cache.app, name="cache", rich_help_panel=_TRAIN)
app.command("compare", epilog=compare.EXAMPLES, rich_help_panel=_MEASURE)(compare.command)
app.command("evaluate", epilog=evaluate.EXAMPLES, rich_help_panel=_MEASURE)(evaluate.command)
app.command("similarity", epilog=similarity.EXAMPLES, rich_help_panel=_MEASURE)(similarity.command)
app.command("predict", epilog=predict.EXAMPLES, rich_help_panel=_MEASURE)(predict.command)
app.command("report", epilog=report.EXAMPLES, rich_help_panel=_MEASURE)(report.command)
app.command("card", epilog=card.EXAMPLES, rich_help_panel=_SHIP)(card.command)
app.command("compress", epilog=compress.EXAMPLES, rich_help_panel=_SHIP)(compress.command)
app.command("prune", epilog=prune.EXAMPLES, rich_help_panel=_SHIP)(prune.command)
app.command("quantize", epilog=quantize.EXAMPLES, rich_help_panel=_SHIP)(quantize.command)
app.command("export", epilog=export.EXAMPLES, rich_help_panel=_SHIP)(export.command)
app.command("certify", epilog=certify.EXAMPLES, rich_help_panel=_SHIP)(certify.command)
app.command("verify", epilog=verify.EXAMPLES, rich_help_panel=_SHIP)(verify.command)
app.command("kit", epilog=kit.EXAMPLES, rich_help_panel=_SHIP)(kit.command)
app.command("watch", epilog=watch.EXAMPLES, rich_help_panel=_LOOK)(watch.command)
app.add_typer(runs.app, name="runs", rich_help_panel=_LOOK)
app.add_typer(recipe.app, name="recipe", rich_help_panel=_LOOK)
app.command("models", epilog=models.EXAMPLES, rich_help_panel=_LOOK)(models.command)
app.command("doctor", epilog=doctor.EXAMPLES, rich_help_panel=_LOOK)(doctor.command)


_NETWORKS = {  # commands that build the network of a recipe or of a run
    "teacher-finetune", "student", "sweep", "search", "import", "soup", "compare", "evaluate", "similarity", "predict",
    "report", "card", "compress", "prune", "quantize", "export", "kit", "certify", "models", "build", "verify", "check",
    "doctor",
}  # fmt: skip


def _all_of(commands: typer.Typer) -> Iterator[CommandInfo]:
    """Every command, those of groups too."""
    yield from commands.registered_commands
    for group in commands.registered_groups:
        if group.typer_instance is not None:
            yield from _all_of(group.typer_instance)


def _offer_leave(command: CommandInfo) -> None:
    """``--allow-code`` for a command that may build a network of the user's own."""
    if command.name in _NETWORKS and command.callback is not None:
        command.callback = _with_leave(command.callback)


def _with_leave(command: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(command)
    def with_leave(*, allow_code: bool = False, **arguments: Any) -> None:
        if allow_code:
            from distill.code import allow_code as leave

            leave()
        command(**arguments)

    plain = inspect.signature(command, eval_str=True)
    more = inspect.Parameter(
        "allow_code", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=options.AllowCodeOption
    )
    with_leave.__signature__ = plain.replace(parameters=[*plain.parameters.values(), more])  # type: ignore[attr-defined]
    with_leave.__annotations__ = {each.name: each.annotation for each in (*plain.parameters.values(), more)}
    del with_leave.__wrapped__
    return with_leave


def _let_help_flow(command: CommandInfo) -> None:
    """Paragraphs of docstrings as paragraphs: typer keeps the source's line breaks, which break sentences elsewhere."""
    paragraphs = (inspect.getdoc(command.callback) or "").split("\n\n")
    command.help = "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


class _Command(TyperCommand):
    """A command whose ``--help`` takes no value, which knows options that are a recipe's, and ``~`` in paths."""

    def parse_args(self, ctx: Any, args: list[str]) -> Any:
        try:
            rest = super().parse_args(ctx, args)
        except Exception as error:  # of typer's own click, which has no public name
            name = getattr(error, "option_name", None)  # of a known one, too: a value that is missing
            known = self._known()
            if name is not None and "--set" in known and name not in known:
                error.message = f"No such option: {name}{options.meant_setting(name)}"  # type: ignore[attr-defined]
            raise
        self._expand_homes(ctx.params)
        return rest

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except DistillError as error:
            if error.hint and "--set" not in self._known():
                error.hint = options.hint_of_a_run(error.hint)
            raise

    def _expand_homes(self, values: dict[str, Any]) -> None:
        """``~`` as the home folder in ``--out=~/file``, which shells leave as it is."""
        for param in self.params:
            if param.name in values and param.metavar in _PATHS:
                values[param.name] = _at_home(values[param.name])

    def _known(self) -> set[str]:
        """Its options, as they are typed."""
        return {word for param in self.params for word in (*param.opts, *param.secondary_opts)}

    def format_help(self, ctx: Any, formatter: Any) -> None:
        _hide_needless_types(self.get_params(ctx))
        super().format_help(ctx, formatter)


def _at_home(value: Any) -> Any:
    if isinstance(value, list):
        return [_at_home(each) for each in value]
    return type(value)(os.path.expanduser(value)) if isinstance(value, str | Path) else value


for _group in app.registered_groups:
    _group.cls = _Commands
for _each in _all_of(app):
    _offer_leave(_each)
    _let_help_flow(_each)
    _each.cls = _Command


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line; ends by ``SystemExit`` with the exit codes of :mod:`distill.errors`.

    Args:
        args: The arguments after the command's name; by default the process's own.
    """
    # Threads that wait between operations leave the cores to others; read once, when torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # not replaced by something that cannot
            stream.reconfigure(errors=PLAINER)  # an ASCII terminal must not end a run over a "±"
    end_on_signals()
    guard_process(speaks=process_rank() == 0)
    enable_faulthandler()
    if under_torchrun():
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # DDP's advice, and hosts without a name, are no news
        if process_rank() != 0:
            mute(sys.stdout)  # the first process prints the result
    app(args=None if args is None else list(args), prog_name="distill")
