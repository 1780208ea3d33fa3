"""Which teacher a student learns from, and whether it is asked live or read from a bank."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from distill.data.plan import view_checksum, views_of
from distill.data.splits import Splits
from distill.errors import RunError, UsageError
from distill.events import Note, Tell
from distill.fingerprint import state_sha256
from distill.models.trained import Trained, load_trained
from distill.recipe import Recipe, bundled_recipes
from distill.report.text import duration
from distill.runs import RunFolder, open_run
from distill.teaching.bank import Bank
from distill.teaching.build import BuildCost, bank_key, bank_path, build_bank, estimate, planned_view
from distill.teaching.key import BankKey, augmentation_key
from distill.teaching.live import LiveTeacher, compile_teacher
from distill.teaching.objective import TeacherSource
from distill.teaching.stored import EnsembleTeacher, StoredTeacher
from distill.teaching.team import ALONE, Team

__all__ = ["Source", "choose_logits", "ensure_bank", "open_live", "open_source", "resolve_teacher"]

_AUTO_DISK_SHARE = 0.25  # auto never fills more of the free disk than this with a bank


@dataclass(frozen=True)
class Source:
    """A teacher that is ready to be asked.

    Attributes:
        about: What ``run.json`` keeps of it.
        trained: The network, where it is here; None where only its answers are.
    """

    teacher: TeacherSource
    about: dict[str, Any]
    trained: Trained | None = None

    def check_unchanged(self) -> None:
        """Raise if the teacher's weights or buffers changed while it taught.

        Raises:
            RunError: They did: the student did not learn from the teacher it names.
        """
        if self.trained is None:
            return
        if state_sha256(self.trained.module.state_dict()) != self.trained.sha256:
            raise RunError(f"the teacher {self.about['run']} changed during training; this is a bug of distill")


def resolve_teacher(recipe: Recipe, *, runs_dir: Path, override: str | None) -> Recipe:
    """The recipe with its teacher as a run folder's path (a bank's stays as it is).

    Raises:
        UsageError: The recipe has no teacher to override.
        RunError: There is no such finished run.
    """
    if recipe.teacher is None:
        if override is not None:
            raise UsageError(
                f"--teacher {override}: recipe {recipe.name} asks no teacher (objective {recipe.objective.kind})",
                hint="drop --teacher, or use a recipe with objective kd",
            )
        return recipe
    teacher = recipe.teacher
    if override is not None:
        teacher = teacher.model_copy(update={"run": override, "bank": None, "banks": ()})
    if teacher.run is not None:
        run = _open_teacher(teacher.run, runs_dir)
        teacher = teacher.model_copy(update={"run": str(run.path)})
    return recipe.model_copy(update={"teacher": teacher})


def _open_teacher(reference: str, runs_dir: Path) -> RunFolder:
    try:
        return open_run(reference, runs_dir=runs_dir)
    except RunError as error:
        if reference in bundled_recipes() and not (runs_dir / reference).exists():
            hint = f"train it first: distill teacher-finetune --recipe {reference}; or name another: --teacher RUN"
            raise RunError(f"the teacher {reference} has no run in {runs_dir}", hint=hint) from error
        raise


def choose_logits(
    recipe: Recipe, splits: Splits, *, runs_dir: Path, device: torch.device
) -> tuple[Recipe, dict[str, Any]]:
    """Resolve ``teacher.logits: auto`` once; the reason goes to ``run.json``."""
    teacher = recipe.teacher
    if teacher is None or teacher.logits != "auto":
        return recipe, {}
    if teacher.run is None:
        how, why = "bank", "a bank was named"
    else:
        trained = load_trained(open_run(teacher.run, runs_dir=runs_dir), device=device)
        how, why = _cheaper(recipe, splits, trained)
    resolved = recipe.model_copy(update={"teacher": teacher.model_copy(update={"logits": how})})
    return resolved, {"teacher.logits": how, "teacher.logits_why": why}


def _cheaper(recipe: Recipe, splits: Splits, trained: Trained) -> tuple[str, str]:
    views, epochs = views_of(recipe.augment, recipe.train.epochs), recipe.train.epochs
    key = bank_key(trained, splits, recipe)
    path = bank_path(trained, key)
    if (path / "bank.json").is_file() and Bank.open(path).info.views >= views:
        return "bank", f"a bank with {views} views is there: {path}"
    disk = views * len(splits.train) * len(trained.classes) * (2 if key.dtype == "float16" else 4)
    if disk > _AUTO_DISK_SHARE * shutil.disk_usage(trained.run.path).free:
        return "live", f"a bank would take {disk / 1e9:.1f} GB, over a quarter of the free disk"
    if views > epochs:
        return "live", f"a bank of {views} views asks the teacher more often than {epochs} epochs do"
    if views == epochs and recipe.train.early_stopping is not None:
        return "live", "the run may stop early, a bank is built whole"
    return "bank", f"{views} views for {epochs} epochs: asked once, and the next student asks nothing"


def open_source(
    recipe: Recipe,
    splits: Splits,
    *,
    runs_dir: Path,
    device: torch.device,
    tell: Tell,
    team: Team = ALONE,
) -> Source:
    """Load or find the teacher that ``recipe`` names, building its bank first where that is missing.

    Several processes call this alike, and build that bank together.
    """
    teacher = recipe.teacher
    assert teacher is not None
    if teacher.run is None:
        return _from_banks(recipe, splits, device=device)
    live = open_live(recipe, splits, runs_dir=runs_dir, device=device)
    if teacher.logits == "live":
        compile_teacher(live.trained, recipe.train)
        return live
    views = views_of(recipe.augment, recipe.train.epochs)
    bank = ensure_bank(live.trained, splits, recipe, views=views, tell=tell, team=team)
    stored = _stored(bank, recipe, splits, device=device)
    return replace(live, teacher=stored, about=live.about | _about_bank(bank))


def _stored(bank: Bank, recipe: Recipe, splits: Splits, *, device: torch.device) -> StoredTeacher:
    """The bank's answers, after a look whether its views were drawn as they are drawn now."""
    views = views_of(recipe.augment, recipe.train.epochs)
    for row in {0, views - 1}:
        view = planned_view(recipe.augment, n=len(splits.train), image_size=recipe.data.image_size, row=row)
        if view_checksum(view) != bank.info.plans[row]:
            raise UsageError(
                f"{bank.path} does not fit this recipe: view {row} was drawn otherwise, by another version of distill",
                hint=f"build it again: distill cache clear {bank.path}, then distill cache build",
            )
    return StoredTeacher(bank, device=device, views=views)


def open_live(recipe: Recipe, splits: Splits, *, runs_dir: Path, device: torch.device) -> Source:
    """The teacher ``recipe.teacher.run`` itself, to be asked at every step."""
    trained = load_trained(open_run(recipe.teacher.run, runs_dir=runs_dir), device=device)
    _check_classes(trained, splits)
    about = {"run": str(trained.run.path), "name": trained.recipe.name, "sha256": trained.sha256, "logits": "live"}
    return Source(LiveTeacher(trained, logits_dtype=recipe.teacher.logits_dtype), about, trained)


def _about_bank(bank: Bank) -> dict[str, Any]:
    return {"logits": "bank", "bank": str(bank.path), "bank_key": bank.info.key.digest()}


def _check_classes(trained: Trained, splits: Splits) -> None:
    if trained.classes != tuple(splits.dataset.classes):
        raise UsageError(
            f"the teacher {trained.run.path} knows {len(trained.classes)} classes of {trained.recipe.data.name}, "
            f"which are not the {len(splits.dataset.classes)} of this data",
            hint="teacher and student need the same data set: see data: in both recipes",
        )


def ensure_bank(
    trained: Trained,
    splits: Splits,
    recipe: Recipe,
    *,
    views: int,
    path: Path | None = None,
    tell: Tell,
    team: Team = ALONE,
) -> Bank:
    """The bank of this teacher for this recipe, with ``views`` views at least; what is missing is built.

    Says first what that will cost. Several processes call this alike.

    Raises:
        RunError: The disk has too little room, or the bank that is there is damaged.
        UsageError: ``path`` holds a bank of something else.
    """
    key = bank_key(trained, splits, recipe)
    path = path or bank_path(trained, key)
    if team.rank == 0 and (missing := views - _views_there(path, key)) > 0:
        cost = estimate(trained, splits, recipe, views=missing)
        _say_cost(path, missing, replace(cost, seconds=cost.seconds / team.world), tell)
    for event in build_bank(trained, splits, recipe, views=views, path=path, team=team):
        tell(event)
    team.broadcast(None)  # all wait until the first one has written the last view
    bank = Bank.open(path)
    bank.require(key, views=views, teachers_own=True)
    return bank


def _views_there(path: Path, key: BankKey) -> int:
    """How many views a bank at ``path`` holds already; one of something else is refused."""
    if not (path / "bank.json").is_file():
        return 0
    bank = Bank.open(path)
    bank.require(key, views=0, teachers_own=True)
    return bank.info.views


def _say_cost(path: Path, views: int, cost: BuildCost, tell: Tell) -> None:
    size = f"{cost.disk_bytes / 1e6:,.1f} MB"
    free = shutil.disk_usage(next(folder for folder in path.absolute().parents if folder.is_dir())).free
    if cost.disk_bytes > free:
        raise RunError(
            f"{path} would take {size}, and {free / 1e6:,.1f} MB are free there",
            hint="fewer views (--set augment.views=N), or ask at every step: --set teacher.logits=live",
        )
    tell(Note(f"building {path}: {views} view{'' if views == 1 else 's'}, about {duration(cost.seconds)}, {size}"))


def _from_banks(recipe: Recipe, splits: Splits, *, device: torch.device) -> Source:
    teacher = recipe.teacher
    named = [(entry.path, entry.weight) for entry in teacher.banks] or [(teacher.bank, 1.0)]
    banks = [(Bank.open(Path(path)), weight) for path, weight in named]
    views = views_of(recipe.augment, recipe.train.epochs)
    for bank, _ in banks:
        bank.require(_students_key(recipe, splits), views=views, teachers_own=False)
        if bank.info.classes != tuple(splits.dataset.classes):
            raise UsageError(f"{bank.path} does not fit this recipe: its classes are not those of the data")
    sources = [_stored(bank, recipe, splits, device=device) for bank, _ in banks]
    first = banks[0][0]
    about = {
        "run": None,
        "name": " + ".join(bank.info.teacher.get("name", "?") for bank, _ in banks),
        "sha256": first.info.key.teacher,
        "banks": [{"path": str(bank.path), "weight": weight} for bank, weight in banks],
    } | _about_bank(first)
    source = sources[0] if len(sources) == 1 else EnsembleTeacher(sources, [weight for _, weight in banks])
    return Source(source, about)


def _students_key(recipe: Recipe, splits: Splits) -> BankKey:
    augment = recipe.augment
    return BankKey(
        teacher="",
        data=splits.fingerprint,
        image_size=recipe.data.image_size,
        normalize={},
        augment=augmentation_key(augment),
        view_seed=None if augment.views == "all" else augment.view_seed,
        dtype=recipe.teacher.logits_dtype,
        precision="",
    )
