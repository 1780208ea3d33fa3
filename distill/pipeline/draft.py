"""Recipes for a folder of pictures that nobody trained on: a teacher's and a student's, with reasons in comments."""

from __future__ import annotations

import json
import math
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from distill.data.batches import steps_per_epoch
from distill.data.folder import list_folder
from distill.data.mixture import Mixture
from distill.data.survey import Survey, survey
from distill.data.unlabelled import list_unlabelled
from distill.errors import DataError, UsageError
from distill.files import expanded, has_controls, write_atomically
from distill.models import params_of
from distill.pipeline.draft_network import DEFAULT_TEACHER, DraftedNetwork, compact_resnet, timm_network
from distill.recipe import SCHEMA_FILE, Recipe, parse_recipe, schema_text
from distill.recipe.data_spec import REST, DataSpec
from distill.text import count, counted, several

__all__ = ["DEFAULT_TEACHER", "Draft", "draft_recipes", "write_draft"]

_SIDES = (32, 48, 64, 96, 128, 160, 192, 224)
_FEW = 2_000  # training images: a network of a quarter of the parameters has enough to learn from
_TEACHER_STEPS, _STUDENT_STEPS, _PRETRAINED_STUDENT_STEPS = 2_000, 8_000, 4_000
_TEST_FRACTION, _VAL_FRACTION = 0.2, 0.1
_LEAST_VIEWS = 10  # the labelled pictures are shown far more often than the others where these are very many
_MOST_UNLABELLED = 0.9  # of a batch: the labels keep their say
_NAME = re.compile(r"[^A-Za-z0-9_.-]+")


@dataclass(frozen=True)
class Draft:
    """Two recipes and what they were made from.

    Attributes:
        name: What both names begin with.
        teacher, student: YAML.
        unlabelled: Pictures without labels that the student is taught on, too.
        downloads: Roles, ``teacher`` and ``student``, whose first run fetches weights.
    """

    name: str
    survey: Survey
    teacher: str
    student: str
    unlabelled: int = 0
    downloads: tuple[str, ...] = ()

    @property
    def set_aside(self) -> dict[str, float]:
        """Shares of the training pictures that both recipes set aside: for ``test``, of the rest for ``val``."""
        return _set_aside(self.survey)


@dataclass(frozen=True)
class _More:
    """Pictures without labels, and how batches mix them with the others."""

    root: str
    mixture: Mixture

    @classmethod
    def of(cls, root: str | Path, seen: Survey, spec: DataSpec) -> _More:
        path = expanded(root)
        paths, _ = list_unlabelled(path)
        _refuse_labelled({(path / each).parent.resolve() for each in paths}, root, spec)
        labelled, count = _labelled(seen), len(paths)
        batch = _batch(labelled + count)
        if count < batch:
            raise UsageError(
                f"{root} holds {counted(count, 'picture')}: too few to be worth a teacher's answers",
                hint=f"at least a batch of them: {batch}",
            )
        share = min(max(round(count / (labelled + count), 2), 0.01), _MOST_UNLABELLED)
        return cls(f"./{root}" if str(root) == REST else str(root), Mixture(labelled, count, share, batch))


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
    spec = DataSpec(name="folder", root=str(data))
    seen = survey(spec, check=True)
    if "test" not in seen.counts and max(seen.per_class) < 2:
        raise DataError(
            f"{data} has one picture of each class, and no test/: none is left to train on",
            hint="some hundreds of each class make a classifier; two at least",
        )
    name = _name(name, data)
    more = None if unlabelled is None else _More.of(unlabelled, seen, spec)
    side = _side(seen)
    large = timm_network(teacher, role="teacher", side=side, classes=len(seen.classes), weights=teacher_weights)
    if student is None:
        if student_weights is not None:
            raise UsageError("--student-weights without --student", hint="name the network that they are of")
        images = seen.counts["train"] + (0 if more is None else more.mixture.unlabelled)
        small = compact_resnet(side, few=images < _FEW)
    else:
        small = timm_network(student, role="student", side=side, classes=len(seen.classes), weights=student_weights)
    draft = Draft(
        name=name,
        survey=seen,
        teacher=_teacher(seen, large, side, root=str(data), name=name),
        student=_student(seen, small, side, root=str(data), name=name, more=more),
        unlabelled=0 if more is None else more.mixture.unlabelled,
        downloads=tuple(
            r for r, network in (("teacher", large), ("student", small)) if network.weights == "pretrained"
        ),
    )
    for text in (draft.teacher, draft.student):
        parse_recipe(text, source=f"the drafted {name}")  # a mistake here is distill's own
    return draft


def write_draft(draft: Draft, folder: Path, *, overwrite: bool = False) -> tuple[Path, ...]:
    """Write both recipes, and the schema that their first lines name unless it is there; the files, in this order.

    Raises:
        UsageError: One of the files is there.
    """
    paths = folder / f"{draft.name}_teacher.yaml", folder / f"{draft.name}_student.yaml"
    there = [str(path) for path in paths if path.exists()]
    if there and not overwrite:
        raise UsageError(f"{' and '.join(there)}: there already", hint="another --name or --out, or --overwrite")
    for path, text in zip(paths, (draft.teacher, draft.student), strict=True):
        # the commands in it are typed where data.root is looked for: here, and not in its folder
        write_atomically(path, text.replace(f"--recipe {path.name}", f"--recipe {shlex.quote(str(path))}"))
    if (schema := folder / SCHEMA_FILE).exists():
        return paths
    write_atomically(schema, schema_text())
    return *paths, schema


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
        if _NAME.search(name) or not name[0].isalnum() or len(name) > 40:
            raise UsageError(f"--name {name!r}", hint="letters, digits, '_', '-', '.', 40 at most")
        return name
    stem = Path(data).absolute().name.split(".")[0]
    cleaned = _NAME.sub("_", stem).strip("_.-")[:40]
    return cleaned or "pictures"


def _side(seen: Survey) -> int:
    """The largest usual size that does not enlarge the pictures."""
    return max((side for side in _SIDES if side <= seen.side), default=_SIDES[0])


# Teacher and student


def _teacher(seen: Survey, network: DraftedNetwork, side: int, *, root: str, name: str) -> str:
    batch = _batch(seen.counts["train"])
    steps = _steps(_labelled(seen), batch)
    epochs = _epochs(steps, _TEACHER_STEPS, most=40)
    return f"""\
# A teacher for the pictures in {_comment(root)}: {network.title}, fine-tuned.
# Run:    distill teacher-finetune --recipe {name}_teacher.yaml
# Time:   distill teacher-finetune --recipe {name}_teacher.yaml --dry-run   tells it for this machine
{_offline(network)}{_seen(seen)}
# yaml-language-server: $schema={SCHEMA_FILE}
schema_version: 1
name: {name}_teacher
role: teacher
{_data(seen, side, root)}
{_augment(side)}
# {network.why}
model: {network.model}
objective: {{kind: supervised}}
optim: {network.optim}
schedule: {{kind: cosine, warmup_epochs: {_short(network.warmup or 0)}}}
# {epochs} epochs are about {count(steps * epochs)} steps: pretrained weights need few
train: {{epochs: {epochs}, batch_size: {batch}, seed: 0, freeze_backbone_epochs: 1{_clip(network)}}}
"""


def _student(seen: Survey, network: DraftedNetwork, side: int, *, root: str, name: str, more: _More | None) -> str:
    labelled = _labelled(seen)
    mixture = Mixture(labelled, 0, 0.0, _batch(seen.counts["train"])) if more is None else more.mixture
    batch = mixture.batch_size
    steps, passes = _steps(mixture.images, batch), mixture.images / (labelled + mixture.unlabelled)  # of an epoch
    epochs = _epochs(
        steps, _STUDENT_STEPS if network.from_scratch else _PRETRAINED_STUDENT_STEPS, most=round(200 / passes)
    )
    views = max(_LEAST_VIEWS, round(epochs * passes))
    warmup = min(5, epochs // 10) if network.warmup is None else network.warmup
    text = f"""\
# A student for the pictures in {_comment(root)}: {network.title}, PARAMS parameters, taught by {name}_teacher.
# Run:    distill student --recipe {name}_student.yaml                 (after the teacher)
# Beside: the same with labels alone{"" if more is None else ", in as many steps"}, to see what the teacher is worth:
#         distill student --recipe {name}_student.yaml --set role=baseline --set name={name}_scratch \\
#           --set objective.kind=supervised --set teacher=null{_without(more, steps, epochs, warmup)}
{_offline(network)}{_seen(seen, more)}
# yaml-language-server: $schema={SCHEMA_FILE}
schema_version: 1
name: {name}_student
role: student
{_data(seen, side, root, more)}
{_augment(side, views=views if views < epochs else None)}
# {network.why}
model: {network.model}
teacher: {{run: {name}_teacher, logits: auto}}                                    # asked once where that is cheaper
objective: {{kind: kd, ce_weight: 0.1, kd_weight: 0.9, temperature: 4.0}}      # mostly the teacher's softened answers
optim: {network.optim}
schedule: {{kind: cosine, warmup_epochs: {_short(warmup)}}}
# {epochs} epochs are about {count(steps * epochs)} steps: {_how_many(network)}
train: {{epochs: {epochs}, batch_size: {batch}, seed: 0{_clip(network)}}}
"""
    return text.replace("PARAMS", count(_params(text, len(seen.classes))), 1)


def _offline(network: DraftedNetwork) -> str:
    if network.weights != "pretrained":
        return ""
    return "# Without network: --set model.weights=FILE.safetensors (or none: from scratch, which wants more epochs)\n"


def _how_many(network: DraftedNetwork) -> str:
    return "a network from scratch needs many" if network.from_scratch else "pretrained weights need fewer"


def _clip(network: DraftedNetwork) -> str:
    return ", clip_norm: 1.0" if network.clip else ""


def _short(number: float) -> str:
    return f"{number:g}"


def _without(more: _More | None, steps: int, epochs: int, warmup: float) -> str:
    """What a student learns without that of which it has the teacher's answers alone, in as many steps.

    Args:
        steps: Of an epoch with those.
    """
    if more is None:
        return ""
    alone = _steps(more.mixture.labelled, more.mixture.batch_size)
    ratio = steps / alone
    settings = {
        "data.unlabelled": "null",
        "augment.views": "null",
        "train.epochs": max(1, round(epochs * ratio)),
        "schedule.warmup_epochs": _short(round(warmup * ratio, 1)),
    }
    return " \\\n#           " + " ".join(f"--set {key}={value}" for key, value in settings.items())


def _params(text: str, classes: int) -> int:
    recipe: Recipe = parse_recipe(text, source="the drafted student")
    return params_of(recipe.model, classes)


# What both say


def _seen(seen: Survey, more: _More | None = None) -> str:
    """What was looked at, as comment lines."""
    parts = ", ".join(f"{count(n)} {split}" for split, n in seen.counts.items())
    low, high = seen.sides
    sizes = f"{seen.side} pixels" if low == high else f"{seen.side} pixels in the median, {low} to {high}"
    lines = [f"# Seen:   {count(len(seen.classes))} classes; {parts} pictures; shorter sides {sizes}."]
    smallest = min(range(len(seen.classes)), key=seen.per_class.__getitem__)
    if seen.imbalance >= 3:
        lines.append(
            f"#         The largest class has {seen.imbalance:.0f} times the pictures of the smallest "
            f"({_comment(seen.classes[smallest])}: {count(seen.per_class[smallest])}): read macro F1 beside top-1."
        )
    if more is not None:
        lines.append(f"#         {count(more.mixture.unlabelled)} pictures without labels, in {_comment(more.root)}")
    return "\n".join(lines)


def _data(seen: Survey, side: int, root: str, more: _More | None = None) -> str:
    own_val = "val" in seen.counts
    why = "the largest usual size that does not enlarge them" if side <= seen.side else "they are smaller: enlarged"
    lines = [f"# kept at {side} pixels: {why}"]
    if "test" not in seen.counts:
        lines.append("# no test/ folder: a fifth of each class is set aside for testing, the same in both recipes")
    fraction = "" if own_val else f", val_fraction: {_VAL_FRACTION}"
    test = "" if "test" in seen.counts else f", test_fraction: {_TEST_FRACTION}"
    beside = ""
    if more is not None:
        lines.append(
            "# from pictures without labels it learns the teacher's answers; an epoch shows each labelled picture once"
        )
        lines.append(f"# they must hold no copy of a picture in {_comment(root)}, which may be one that tests")
        share = f"unlabelled_share: {more.mixture.share}"
        beside = f",\n       unlabelled: {json.dumps(more.root, ensure_ascii=False)}, {share}"
    place = json.dumps(root, ensure_ascii=False)
    lines.append(f"data: {{name: folder, root: {place}, image_size: {side}{fraction}{test}{beside}}}")
    return "\n".join(lines)


def _augment(side: int, *, views: int | None = None) -> str:
    why = "# mirrored half of the time: hflip: 0 where a mirrored picture is another class (text, digits)\n"
    more = ""
    if views is not None:
        why += f"# the teacher answers {counted(views, 'view')} of each picture: about as many as are shown\n"
        more = f", views: {views}"
    return f"{why}augment: {{crop_padding: {side // 8}, crop_fill: reflect, hflip: 0.5{more}}}"


def _comment(text: str) -> str:
    """Somebody's words in a comment: they end no line and start no command."""
    return " ".join("".join(char if char.isprintable() else "?" for char in text).split())[:80]


def _batch(images: int) -> int:
    return 32 if images < _FEW else 64 if images < 10 * _FEW else 128


def _set_aside(seen: Survey) -> dict[str, float]:
    """Without folders of their own, test and validation images are taken from the training images."""
    wanted = {"test": _TEST_FRACTION, "val": _VAL_FRACTION}
    return {split: share for split, share in wanted.items() if split not in seen.counts}


def _labelled(seen: Survey) -> int:
    """Training pictures that are left when some are set aside."""
    return max(1, round(seen.counts["train"] * math.prod(1 - share for share in _set_aside(seen).values())))


def _steps(images: int, batch: int) -> int:
    return max(1, steps_per_epoch(images, batch))


def _epochs(steps: int, wanted: int, *, most: int) -> int:
    """So many that they make about ``wanted`` steps, of ``steps`` each."""
    return max(5, min(most, round(wanted / steps)))
