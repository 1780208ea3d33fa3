"""``distill card``: one model measured, and a model card of what was found."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from distill.comparison import Examined, examine
from distill.comparison.entries import EvaluatedModel, EvaluatedRun
from distill.comparison.files import EvaluatedFile
from distill.errors import UsageError
from distill.files import refuse_to_replace, write_export
from distill.models.onnx_metadata import FileAbout
from distill.models.onnx_open import is_exported_file
from distill.pipeline.context import Options
from distill.pipeline.members import found_of, members, settings_of
from distill.pipeline.provenance import teachers_weights
from distill.recipe import dump_recipe
from distill.references import run_of
from distill.report.card.content import Card
from distill.report.card.render import MARK, render_card
from distill.report.deployment import scheme_sentence
from distill.results.rows import Row
from distill.runs import RunFolder
from distill.runs.origin import behind, imported_from, weights_from
from distill.team.watch import watching
from distill.text import percent

__all__ = ["check_card_name", "gather_card", "model_card", "write_card"]

_HUB = {"cifar10": "uoft-cs/cifar10", "cifar100": "uoft-cs/cifar100"}


@watching()
def model_card(reference: Any, *, latency: bool = True, options: Options | None = None) -> str:
    """Make a model card of a run or an exported file: Markdown with Hugging Face's metadata block.

    It reports what was measured or recorded, and says what is missing. A name means all its seeds: the results are over
    these, the weights are the latest run's.

    Args:
        reference: A run (name, folder, result), or an exported file.
        latency: Also time the model.

    Raises:
        DistillError: As for ``compare``.

    Example:
        >>> card = model_card("quickstart_student", latency=False)
        >>> card.splitlines()[0]
        '---'
    """
    options, named = options or Options(), run_of(reference)
    examined = examine(
        [named],
        runs_dir=options.runs_dir,
        device=options.device,
        threads_used=options.timing_threads or 1,
        latency=latency,
        tell=options.tell,
    )
    return render_card(gather_card(examined, wants_file=is_exported_file(named)))


def write_card(
    reference: Any, *, out: str | Path, latency: bool = True, overwrite: bool = False, options: Options | None = None
) -> Path:
    """Write :func:`model_card` to a file, ``README.md`` if a hub is to display it.

    Raises:
        UsageError: The file's name is not valid for a card, or belongs to something else.
        DistillError: As for ``compare``.

    Example:
        >>> write_card("quickstart_student", out="README.md", latency=False).name
        'README.md'
    """
    out = Path(out)
    check_card_name(out, overwrite=overwrite)
    card = model_card(reference, latency=latency, options=options)
    write_export(out, card.encode("utf-8", "backslashreplace"))
    return out


def check_card_name(path: Path, *, overwrite: bool = False) -> None:
    """Refuse a name that no card can have, or that belongs to a file which distill did not make.

    Raises:
        UsageError: It is refused; the hint says what to do.
    """
    if path.is_dir():
        raise UsageError(f"{path} is a folder", hint=f"name a file: {path / 'README.md'}")
    if path.suffix.lower() != ".md":
        raise UsageError(f"{path}: a card is a file of Markdown", hint="for example README.md")
    mark = MARK.encode()
    refuse_to_replace(path, ours=lambda there: mark in there, why="distill did not make it", overwrite=overwrite)


def gather_card(examined: Examined, *, wants_file: bool) -> Card:
    """All that a card says of the one run (all its seeds) or the one file of a comparison."""
    comparison, tested = examined.comparison, examined.tested
    row = _meant(comparison.rows, examined, wants_file=wants_file)
    (member,) = (each for each in members(comparison.rows, tested) if each.row.run == row.run)
    newest = tested[row.run][-1]
    stored = found_of(newest)
    source = newest.source if isinstance(newest, EvaluatedFile) else newest
    info = source.info if isinstance(source, EvaluatedRun) else None
    result, data = newest.assessment.result, (info.data if info else None) or {}
    imported = None if info is None else imported_from(info)
    trained = {} if imported else {"training": data.get("train"), "unlabelled training": data.get("unlabelled")}
    counts = trained | {"validation": data.get("val"), "test": result.n}
    teacher = (info.teacher if info else None) or {}
    learned = newest.recipe.teacher is not None
    return Card(
        member=member,
        place=row.run,
        is_file=wants_file,
        result=result,
        classes=tuple(each.label for each in result.per_class),
        side=_side(newest),
        images={name: n for name, n in counts.items() if isinstance(n, int)},
        recipe=settings_of(newest.recipe),
        recipe_text=dump_recipe(newest.recipe),
        device=comparison.device,
        threads=comparison.threads,
        off=tuple(f"augment.{key}" for key, is_on in newest.recipe.augment.turned_on.items() if not is_on),
        versions=comparison.versions,
        hub_dataset=_HUB.get(newest.recipe.data.name),
        corruptions=stored.corruptions if stored else None,
        quantised=_quantised(newest.file.about) if isinstance(newest, EvaluatedFile) else None,
        imported=imported,
        weights_from=None if info is None else weights_from(info),
        elsewhere=() if source is None or not isinstance(source, EvaluatedRun) else _elsewhere(source.run),
        teacher=str(teacher.get("name") or "a teacher that is not here") if learned else None,
        teacher_sha256=teachers_weights(teacher),
        teacher_top1=None if row.delta_top1 is None or row.test_top1 is None else row.test_top1 - row.delta_top1,
        notes=comparison.notes,
    )


def _elsewhere(run: RunFolder) -> tuple[str, ...]:
    """The runs behind a run, also as teachers, that were trained elsewhere."""
    found = behind(run, run.path.parent.parent, taught=True)
    return tuple(str(each.path) for each in found if imported_from(each.info) is not None)


def _quantised(about: FileAbout) -> str | None:
    """How an int8 file was made, as it says itself."""
    if about.arithmetic != "int8":
        return None
    said = [scheme_sentence(about.scheme, about.calibration_images)]
    if about.max_drop is not None:
        shown = ", shown by the upper end of the 95% interval" if about.proven else ""
        said.append(f"at most {percent(about.max_drop)} points of validation top-1 lost{shown}")
    return "; ".join(filter(None, said))


def _side(entry: EvaluatedModel) -> int:
    if isinstance(entry, EvaluatedFile):
        return entry.file.image_size
    size = entry.recipe.data.image_size
    return size if isinstance(size, int) else entry.recipe.model.input_size  # of a run every auto is resolved


def _meant(rows: Sequence[Row], examined: Examined, *, wants_file: bool) -> Row:
    kind = EvaluatedFile if wants_file else EvaluatedRun
    return next(row for row in rows if examined.tested.get(row.run) and isinstance(examined.tested[row.run][-1], kind))
