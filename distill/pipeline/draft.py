"""Recipes for a folder of pictures that nobody trained on: a teacher's, a student's, and the student's without it."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from distill.data.folder import list_folder
from distill.data.mixture import Mixture
from distill.data.survey import Survey, survey
from distill.data.unlabelled import list_unlabelled
from distill.errors import DataError, DistillError, UsageError
from distill.files import expanded, has_controls, write_atomically
from distill.models import check_network
from distill.pipeline.draft_network import DEFAULT_TEACHER, check_choice, compact_resnet, timm_network
from distill.pipeline.draft_recipe import (
    FEW,
    MorePictures,
    batch_size,
    labelled_pictures,
    scratch_recipe,
    set_aside,
    student_recipe,
    teacher_recipe,
)
from distill.recipe import SCHEMA_FILE, parse_recipe, schema_text
from distill.recipe.data_spec import REST, DataSpec
from distill.text import counted, several

__all__ = ["DEFAULT_TEACHER", "Draft", "draft_recipes", "write_draft"]

_SIDES = (32, 48, 64, 96, 128, 160, 192, 224)
_MOST_UNLABELLED = 0.9  # of a batch: the labels keep their say
_NAME = re.compile(r"[^A-Za-z0-9_.-]+")


@dataclass(frozen=True)
class Draft:
    """Three recipes and what they were made from.

    Attributes:
        name: What their names begin with.
        teacher, student, scratch: YAML; the last is the student without a teacher.
        unlabelled: Pictures without labels that the student is taught on, too.
        downloads: Roles, ``teacher`` and ``student``, whose first run fetches weights.
    """

    name: str
    survey: Survey
    teacher: str
    student: str
    scratch: str
    unlabelled: int = 0
    downloads: tuple[str, ...] = ()

    @property
    def set_aside(self) -> dict[str, int]:
        """How many of the training pictures the recipes set aside, for ``test`` and for ``val``."""
        return set_aside(self.survey)


def draft_recipes(
    data: str | Path,
    *,
    name: str | None = None,
    unlabelled: str | Path | None = None,
    teacher: str = DEFAULT_TEACHER,
    teacher_weights: str | Path | None = None,
    student: str | None = None,
    student_weights: str | Path | None = None,
) -> Draft:
    """Look at pictures, and write recipes that run on them as they stand.

    Args:
        data: A folder or archive of class folders, split or not.
        name: What the recipes' names begin with; None: the folder's name.
        unlabelled: A folder of pictures without labels, however deep: the student learns the teacher's answers to them.
        teacher: A network of timm's, by its name.
        teacher_weights: A ``.safetensors`` file of it; None: timm's, which the first run downloads.
        student: A network of timm's, whose weights it begins from, too; None: a compact ResNet, from scratch.
        student_weights: The same.

    Raises:
        MissingError: There is no such folder, or no such file of weights.
        DataError: Its layout is wrong, or its pictures cannot be opened.
        UsageError: ``name``, or a path, cannot be a recipe's; ``unlabelled`` holds too few pictures, or labelled ones;
            timm has no such network, no weights of it, or it is too large for a student.
    """
    for path in (data, unlabelled, teacher_weights, student_weights):
        if path is not None and has_controls(str(path)):
            raise UsageError(
                f"{path}: a path that has control characters, or is not UTF-8, stands in no recipe",
                hint="rename it, or name a link to it",
            )
    check_choice(teacher, role="teacher", weights=teacher_weights)
    if student is not None:
        check_choice(student, role="student", weights=student_weights)
    elif student_weights is not None:
        raise UsageError("--student-weights without --student", hint="name the network that they are of")
    spec = DataSpec(name="folder", root=str(data))
    seen = survey(spec, check=True)
    if "test" not in seen.counts and max(seen.per_class) < 2:
        raise DataError(
            f"{data} has one picture of each class, and no test/: none is left to train on",
            hint="some hundreds of each class make a classifier; two at least",
        )
    name = _name(name, data)
    more = None if unlabelled is None else _more_pictures(unlabelled, seen, spec)
    side = _side(seen)
    large = timm_network(teacher, role="teacher", side=side, classes=len(seen.classes), weights=teacher_weights)
    if student is None:
        images = seen.counts["train"] + (0 if more is None else more.mixture.unlabelled)
        small = compact_resnet(side, few=images < FEW, classes=len(seen.classes))
    else:
        small = timm_network(student, role="student", side=side, classes=len(seen.classes), weights=student_weights)
    draft = Draft(
        name=name,
        survey=seen,
        teacher=teacher_recipe(seen, large, side, root=str(data), name=name),
        student=student_recipe(seen, small, side, root=str(data), name=name, more=more),
        scratch=scratch_recipe(seen, small, side, root=str(data), name=name, more=more),
        unlabelled=0 if more is None else more.mixture.unlabelled,
        downloads=tuple(
            r for r, network in (("teacher", large), ("student", small)) if network.weights == "pretrained"
        ),
    )
    for text in (draft.teacher, draft.student, draft.scratch):
        recipe = parse_recipe(text, source=f"the drafted {name}")  # a mistake here is distill's own
        try:
            check_network(recipe, len(seen.classes))
        except DistillError as error:  # of some families of timm's, at this size
            raise UsageError(f"recipe new: {error.message}", hint="name another network of timm's") from error
    return draft


def write_draft(draft: Draft, folder: Path, *, overwrite: bool = False) -> tuple[Path, ...]:
    """Write the three, and the schema that their first lines name unless it is there; the files, in this order.

    Raises:
        UsageError: One of the files is there.
    """
    texts = {"teacher": draft.teacher, "student": draft.student, "scratch": draft.scratch}
    paths = tuple(folder / f"{draft.name}_{each}.yaml" for each in texts)
    there = [str(path) for path in paths if path.exists()]
    if there and not overwrite:
        raise UsageError(f"{' and '.join(there)}: there already", hint="another --name or --out, or --overwrite")
    for path, text in zip(paths, texts.values(), strict=True):
        # the commands in it are typed where data.root is looked for: here, and not in its folder
        write_atomically(path, text.replace(f"--recipe {path.name}", f"--recipe {shlex.quote(str(path))}"))
    if (schema := folder / SCHEMA_FILE).exists():
        return paths
    write_atomically(schema, schema_text())
    return *paths, schema


def _more_pictures(root: str | Path, seen: Survey, spec: DataSpec) -> MorePictures:
    path = expanded(root)
    paths, _ = list_unlabelled(path)
    _refuse_labelled({(path / each).parent.resolve() for each in paths}, root, spec)
    labelled, count = labelled_pictures(seen), len(paths)
    batch = batch_size(labelled + count)
    if count < batch:
        raise UsageError(
            f"{root} holds {counted(count, 'picture')}: too few to be worth a teacher's answers",
            hint=f"at least a batch of them: {batch}",
        )
    share = min(max(round(count / (labelled + count), 2), 0.01), _MOST_UNLABELLED)
    return MorePictures(f"./{root}" if str(root) == REST else str(root), Mixture(labelled, count, share, batch))


def _refuse_labelled(folders: set[Path], unlabelled: str | Path, spec: DataSpec) -> None:
    """Pictures that test must not be taught, and those of a class folder have a label; links hide neither."""
    if not (root := expanded(spec.root)).is_dir():
        return  # nothing is read from an archive
    splits = list_folder(spec).splits.values()
    labelled = {(root / path).parent.resolve() for split in splits for path in split.paths}
    if shared := sorted(map(str, folders & labelled)):
        raise UsageError(
            f"--unlabelled {unlabelled} holds labelled pictures: {several(shared, 3)}",
            hint="name a folder that holds the others alone",
        )


def _name(name: str | None, data: str | Path) -> str:
    if name is not None:
        if not name or _NAME.search(name) or not name[0].isalnum() or len(name) > 40:
            raise UsageError(f"--name {name!r}", hint="letters, digits, '_', '-', '.', 40 at most, no sign first")
        return name
    stem = Path(data).absolute().name.split(".")[0]
    cleaned = _NAME.sub("_", stem).strip("_.-")[:40]
    return cleaned or "pictures"


def _side(seen: Survey) -> int:
    """The usual size nearest to the pictures', by ratio: a little is enlarged rather than much detail lost."""
    return min(_SIDES, key=lambda side: (max(side, seen.side) / min(side, seen.side), side))
