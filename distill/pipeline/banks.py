"""Banks as a user handles them: build one, find them, look at them, delete them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill.data.splits import Splits, load_splits
from distill.data.views import views_of
from distill.devices import deterministic_kernels
from distill.errors import DistillError, NoRunError, RunError, UsageError
from distill.events import Note
from distill.files import expanded
from distill.pipeline.context import Context, Options, prepare
from distill.pipeline.ensure_bank import ensure_bank
from distill.pipeline.image_size import resolve_image_size
from distill.pipeline.launch import launch
from distill.pipeline.source import find_teacher
from distill.pipeline.taught import taught_views
from distill.pipeline.teacher import resolve_teacher
from distill.pipeline.teacher_settings import resolve_teacher_inference
from distill.recipe import Recipe, load_recipe
from distill.results.figures import Figures
from distill.results.rows import BankRow
from distill.runs import open_run
from distill.teaching.bank import Bank
from distill.teaching.bank_files import INFO, TEST_LOGITS, bank_bytes
from distill.teaching.remove import Removal, is_bank, remove_bank
from distill.team.shares import Distributed, Team
from distill.team.watch import watching
from distill.text import several

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["build_bank", "build_banks", "clear_banks", "describe_bank", "find_banks", "list_banks"]


def build_bank(
    recipe: Recipe | str | Path,
    *,
    teacher: str | None = None,
    views: int | None = None,
    path: Path | None = None,
    splits: Splits | None = None,
    options: Options | None = None,
) -> BankRow:
    """Store a teacher's logits for the views that a student's recipe shows; an existing bank is continued.

    Args:
        teacher: A run that replaces the recipe's ``teacher.run``.
        views: How many views; by default as many as the recipe shows.
        path: The bank's folder; by default one in the teacher's run.
        splits: The recipe's data, if already loaded.

    Raises:
        UsageError: The recipe uses no teacher or names only a bank; ``path`` holds something else.
        RunError: There is no such teacher, or not enough disk space.

    Example:
        >>> bank = build_bank("quickstart_student", views=4)
        >>> bank.teacher, bank.views, bank.status
        ('quickstart_teacher', 4, 'ok')
    """
    options = options or Options()
    recipe = load_recipe(recipe)
    recipe = resolve_teacher(recipe, runs_dir=options.runs_dir, override=teacher)
    _require_run(recipe)
    count = _how_many(recipe, views, options)
    if path is not None and not (path / INFO).exists() and path.exists() and _is_taken(path):
        raise UsageError(f"{path} is there and is no bank", hint="name an empty folder, or one that is not there yet")
    built = launch(partial(_build, views=count, path=path), prepare(recipe, options, splits=splits))
    return describe_bank(built)


def build_banks(
    recipe: Recipe | str | Path,
    *,
    teacher: Any = None,
    views: int | None = None,
    path: Path | None = None,
    options: Options | None = None,
) -> list[BankRow]:
    """:func:`build_bank` for each of several teachers in sequence: all are found before the first is run.

    Args:
        teacher: A run, or several, replacing those that the recipe names.
        views: As for :func:`build_bank`, for each teacher.
        path: As for :func:`build_bank`, with a single teacher only.

    Raises:
        UsageError: As for :func:`build_bank`, or ``path`` is given for several teachers.
        RunError: As for :func:`build_bank`.

    Example:
        >>> banks = build_banks("quickstart_student", teacher=["quickstart_teacher"], views=4)
        >>> [(bank.teacher, bank.views) for bank in banks]
        [('quickstart_teacher', 4)]
    """
    options = options or Options()
    recipe = load_recipe(recipe)
    recipe = resolve_teacher(recipe, runs_dir=options.runs_dir, override=teacher)
    runs = recipe.teacher.members if recipe.teacher is not None else ()
    if len(runs) > 1 and path is not None:
        raise UsageError(f"{path} is one bank, and there are {len(runs)} teachers", hint="leave out --out, or name one")
    if recipe.teacher is not None and recipe.teacher.banks:  # a student reads all of them
        recipe = resolve_image_size(recipe, runs_dir=options.runs_dir, tell=options.tell)
    return [
        build_bank(recipe, teacher=run, views=views, path=path, options=options)
        for run in dict.fromkeys(runs) or [None]
    ]


def _require_run(recipe: Recipe) -> None:
    if recipe.teacher is None:
        raise UsageError(
            f"recipe {recipe.name} asks no teacher (objective {recipe.objective.kind}): there is nothing to store",
            hint="name a student's recipe: distill recipe list",
        )
    if recipe.teacher.run is None and recipe.teacher.onnx is None:
        runs = recipe.teacher.members
        names = f"names {len(runs)} teachers" if runs else "reads a bank and names no teacher to ask"
        raise UsageError(f"recipe {recipe.name} {names}", hint=f"name one: --teacher {runs[0] if runs else 'RUN'}")


def _how_many(recipe: Recipe, views: int | None, options: Options) -> int:
    """The number of views to store; asking for more than there are says so."""
    if views is None:
        return taught_views(recipe)
    if recipe.augment.views == "all":
        entries = taught_views(recipe)
        if views != entries:
            raise UsageError(f"augment.views: all has {entries} views, not {views}", hint="leave out --views")
        return entries
    wanted = recipe.augment.model_copy(update={"views": views})
    there_are = views_of(wanted, views)
    if there_are < views:
        options.tell(Note(f"nothing in this augmentation is random: {there_are} view, not {views}", "warning"))
    return there_are


def _is_taken(path: Path) -> bool:
    return not path.is_dir() or any(path.iterdir())


def _build(fabric: Fabric, context: Context, *, views: int, path: Path | None) -> Path:
    """In each process of one or several."""
    team = Distributed(fabric)
    with watching(rank=team.rank), deterministic_kernels(fabric.device, context.recipe.train.deterministic):
        return _built(fabric, team, context, views=views, path=path)


def _built(fabric: Fabric, team: Team, context: Context, *, views: int, path: Path | None) -> Path:
    options, recipe = context.options, context.recipe
    splits = context.splits or load_splits(recipe.data, options.tell, unlabelled=True)
    teacher = find_teacher(recipe, runs_dir=options.runs_dir, device=fabric.device, classes=splits.dataset.classes)
    assert teacher is not None, "seen to by _require_run"
    teacher.require_classes(splits.dataset.classes)
    recipe, _ = team.broadcast(
        resolve_teacher_inference(recipe, splits, teacher, path=path) if team.is_main_process else (recipe, {})
    )
    bank = ensure_bank(
        teacher, splits, recipe, views=views, path=path, renew_figures=True, tell=options.tell, team=team
    )
    return bank.path


# Finding


def find_banks(references: Sequence[str | Path], *, runs_dir: Path) -> list[Path]:
    """Bank folders: those named, those of the runs named, or, with nothing named, all below ``runs_dir``.

    Raises:
        RunError: A name is neither a bank nor a run that has one.
    """
    if not references:
        return list(_below(path for path in runs_dir.glob("*/*/banks") if not path.parent.is_symlink()))  # no latest/
    paths = (path for reference in references for path in _named(reference, runs_dir))
    return list(dict.fromkeys(paths))


def _named(reference: str | Path, runs_dir: Path) -> list[Path]:
    path = expanded(reference)
    if (path / INFO).exists():
        return [path]
    if inside := list(_below([path])):
        return inside
    try:
        run = open_run(reference, runs_dir=runs_dir, finished=False)
    except NoRunError as error:
        raise NoRunError(f"neither a bank nor a run: {reference}", hint=error.hint) from error
    if not (inside := list(_below([run.path / "banks"]))):
        hint = f"make one: distill cache build --recipe R --teacher {run.path}"
        raise RunError(f"{run.path} has no bank", hint=hint)
    return inside


def _below(folders: Iterable[Path]) -> Iterator[Path]:
    for folder in sorted(folders):
        if folder.is_dir():
            yield from sorted(path for path in folder.iterdir() if is_bank(path))


# Looking


def list_banks(references: Sequence[str | Path] = (), *, runs_dir: Path = Path("runs")) -> tuple[BankRow, ...]:
    """List the banks; a damaged one is a row that says so.

    Example:
        >>> {bank.status for bank in list_banks()}
        {'ok'}
    """
    return tuple(describe_bank(path) for path in find_banks(references, runs_dir=runs_dir))


def describe_bank(path: Path) -> BankRow:
    """A bank as a row. Of its files one view is read, the others are looked at: see :func:`verify_banks`."""
    try:
        bank = Bank.read(path)
    except DistillError as error:
        return BankRow(str(path), "", "", 0, 0, "", _size_mb(path), f"damaged: {_reason(error, path)}")
    try:
        infinite = Bank.open(path).not_finite(range(min(bank.info.views, 1)))  # a teacher overflows in every view
        status = f"damaged: not finite: {several(infinite, most=3)}" if infinite else "ok"
        if bank.info.teacher is not None and not (path / TEST_LOGITS).is_file():
            status = f"damaged: {TEST_LOGITS} is missing"
    except DistillError as error:
        status = f"damaged: {_reason(error, path)}"
    return _row(bank, status)


def _row(bank: Bank, status: str) -> BankRow:
    info, teacher = bank.info, bank.info.teacher
    figures = Figures() if teacher is None else teacher.figures
    return BankRow(
        path=str(bank.path),
        teacher=teacher.name if teacher else "",
        dataset=teacher.dataset if teacher else str(info.data.get("name", "")),
        images=info.images,
        views=info.views,
        dtype=info.key.dtype,
        size_mb=_size_mb(bank.path),
        status=status,
        classes=len(info.classes),
        image_size=info.key.image_size,
        augment=_augmentation(info.key.augment),
        view_seed=info.key.view_seed,
        precision=info.identity.precision,
        teacher_top1=figures.test_top1,
        teacher_params=figures.params,
        teacher_sha256=info.identity.weights,
    )


def _size_mb(path: Path) -> float:
    with suppress(OSError):  # not ours to list, or gone meanwhile
        return bank_bytes(path) / 1e6
    return 0.0


def _reason(error: DistillError, path: Path) -> str:
    """The error's line without the path that the row has already."""
    return error.message.replace(f"{path}/", "").replace(str(path), "the bank")


def _augmentation(augment: dict[str, Any]) -> str:
    """What an image goes through, in a few words: what is off is left out."""
    words = []
    if padding := augment.get("crop_padding"):
        fill = "" if augment.get("crop_fill") == "reflect" else f" {augment.get('crop_fill')}"
        words.append(f"crop {padding}{fill}")
    if augment.get("resized_crop"):
        words.append("resized crop")
    words += [f"{name} {augment[name]:g}" for name in ("hflip", "vflip", "rotation") if augment.get(name)]
    if augment.get("hflip_alternates"):
        words.append("alternating")
    words += _looks(augment)
    for name, key in (("erase", "size"), ("mixup", "alpha"), ("cutmix", "alpha")):
        if value := (augment.get(name) or {}).get(key):
            words.append(f"{name} {value:g}")
    if augment.get("tabulated"):
        words.append("all of them")
    return ", ".join(words) or "none"


def _looks(augment: dict[str, Any]) -> list[str]:
    words = []
    if rand := augment.get("rand_augment"):
        words.append(f"RandAugment {rand['operations']} at {rand['magnitude']} of {rand['bins'] - 1}")
    words += ["TrivialAugment"] * bool(augment.get("trivial_augment"))
    words += ["jitter"] * bool(augment.get("jitter"))
    if share := augment.get("grayscale"):
        words.append(f"grayscale {share:g}")
    if blur := augment.get("blur"):
        words.append(f"blur {blur['probability']:g}")
    return words


# Deleting


def clear_banks(references: Sequence[str | Path] = (), *, runs_dir: Path = Path("runs")) -> tuple[Removal, ...]:
    """Delete banks. Files that distill did not make are kept, and named in the result.

    Raises:
        RunError: A name is not a bank, or a bank is being built.

    Example:
        >>> [removal.left for removal in clear_banks(["quickstart_teacher"])]  # what distill did not make
        [()]
    """
    return tuple(remove_bank(path) for path in find_banks(references, runs_dir=runs_dir))
