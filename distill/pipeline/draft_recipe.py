"""The text of the recipes that are drafted for somebody's pictures, with the reasons in comments."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np

from distill.data.batches import steps_per_epoch
from distill.data.mixture import Mixture
from distill.data.stratify import stratified_counts
from distill.data.survey import Survey
from distill.files import expanded
from distill.pipeline.draft_network import DraftedNetwork
from distill.pipeline.image_size import LOSES_DETAIL
from distill.recipe import SCHEMA_FILE
from distill.text import count, counted

__all__ = [
    "FEW",
    "MorePictures",
    "batch_size",
    "labelled_pictures",
    "scratch_recipe",
    "set_aside",
    "student_recipe",
    "teacher_recipe",
]

FEW = 2_000  # training images: a network of a quarter of the parameters has enough to learn from
_TEACHER_STEPS, _STUDENT_STEPS = 2_000, 8_000
_TEST_FRACTION, _VAL_FRACTION = 0.2, 0.1
_SHIPS = "# the last epoch is what ships: the best of many on so few validation images may be a lucky one"
_LEAST_VIEWS = 10  # the labelled pictures are shown far more often than the others where these are very many


@dataclass(frozen=True)
class MorePictures:
    """Pictures without labels, and how batches mix them with the others."""

    root: str
    mixture: Mixture


def teacher_recipe(seen: Survey, network: DraftedNetwork, side: int, *, root: str, name: str) -> str:
    """The teacher's."""
    batch = batch_size(seen.counts["train"])
    steps = _steps(labelled_pictures(seen), batch)
    epochs = _epochs(steps, _TEACHER_STEPS, most=network.most_epochs)
    return f"""\
# A teacher for the pictures in {_comment(root)}: {network.title}, fine-tuned.
# Run:    distill teacher-finetune --recipe {name}_teacher.yaml
# Time:   distill teacher-finetune --recipe {name}_teacher.yaml --dry-run   tells it for this machine
{_stated(seen, network, side, root=root, name=f"{name}_teacher", role="teacher")}
objective: {{kind: supervised}}
optim: {network.optim}
schedule: {{kind: cosine, warmup_epochs: {_short(_warmup(network, steps, epochs, 1))}}}
# {epochs} epochs are about {count(steps * epochs)} steps: pretrained weights need few
{_SHIPS}
train: {{epochs: {epochs}, batch_size: {batch}, seed: 0, monitor: last, freeze_backbone_epochs: 1{_clip(network)}}}
"""


@dataclass(frozen=True)
class _Training:
    """How long a student trains: with the teacher's answers to more pictures, or in as many steps without."""

    batch: int
    steps: int  # of an epoch
    epochs: int
    warmup: float
    passes: float = 1.0  # over all its pictures, in an epoch

    def with_labels_alone(self, labelled: int) -> _Training:
        """In as many steps, on ``labelled`` pictures."""
        steps = _steps(labelled, self.batch)
        ratio = self.steps / steps
        return _Training(self.batch, steps, max(1, round(self.epochs * ratio)), round(self.warmup * ratio, 1))


def _training(seen: Survey, network: DraftedNetwork, more: MorePictures | None) -> _Training:
    labelled = labelled_pictures(seen)
    mixture = Mixture(labelled, 0, 0.0, batch_size(seen.counts["train"])) if more is None else more.mixture
    steps, passes = _steps(mixture.images, mixture.batch_size), mixture.images / (labelled + mixture.unlabelled)
    share = 1.0 if network.from_scratch else 0.5  # pretrained weights need fewer
    epochs = _epochs(steps, round(share * _STUDENT_STEPS), most=round(share * 200 / passes))
    warmup = _warmup(network, steps, epochs, min(5, epochs // 10))
    return _Training(mixture.batch_size, steps, epochs, warmup, passes)


def student_recipe(
    seen: Survey, network: DraftedNetwork, side: int, *, root: str, name: str, more: MorePictures | None
) -> str:
    """The student's, taught by ``{name}_teacher``."""
    training = _training(seen, network, more)
    views = max(_LEAST_VIEWS, round(training.epochs * training.passes))
    shown = views if views < training.epochs else None
    return f"""\
# A student for the pictures in {_comment(root)}: {network.sized}, taught by {name}_teacher.
# Run:    distill student --recipe {name}_student.yaml                 (after the teacher)
# Beside: {name}_scratch.yaml, the same from labels alone: what is the teacher worth?
{_stated(seen, network, side, root=root, name=f"{name}_student", role="student", more=more, views=shown)}
teacher: {{run: {name}_teacher, logits: auto}}                                    # asked once where that is cheaper
objective: {{kind: kd, ce_weight: 0.1, kd_weight: 0.9, temperature: 4.0}}      # mostly the teacher's softened answers
{_trained(network, training)}"""


def scratch_recipe(
    seen: Survey, network: DraftedNetwork, side: int, *, root: str, name: str, more: MorePictures | None
) -> str:
    """The baseline's: the student's network from labels alone, in as many steps."""
    training = _training(seen, network, more)
    if more is not None:
        training = training.with_labels_alone(more.mixture.labelled)
    return f"""\
# The student for the pictures in {_comment(root)} without a teacher: {network.sized}.
# Run:    distill student --recipe {name}_scratch.yaml
# Beside: {name}_student.yaml, taught by {name}_teacher, in as many steps; distill compare says whether that is better
{_stated(seen, network, side, root=root, name=f"{name}_scratch", role="baseline")}
objective: {{kind: supervised}}
{_trained(network, training)}"""


def _trained(network: DraftedNetwork, training: _Training) -> str:
    epochs, steps = training.epochs, count(training.steps * training.epochs)
    return f"""\
optim: {network.optim}
schedule: {{kind: cosine, warmup_epochs: {_short(training.warmup)}}}
# {epochs} epochs are about {steps} steps: {_how_many(network)}
{_SHIPS}
train: {{epochs: {epochs}, batch_size: {training.batch}, seed: 0, monitor: last{_clip(network)}}}
"""


def _warmup(network: DraftedNetwork, steps: int, epochs: int, usual: float) -> float:
    """Epochs, of ``steps`` each; a tenth of all at most."""
    return usual if network.warmup is None else round(min(network.warmup / steps, epochs / 10), 2)


def _offline(network: DraftedNetwork) -> str:
    if network.weights != "pretrained":
        return ""
    return "# Without network: --set model.weights=FILE.safetensors (or none: from scratch, which wants more epochs)\n"


def _how_many(network: DraftedNetwork) -> str:
    return f"a network from scratch {'needs many' if network.from_scratch else 'would get twice as many'}"


def _clip(network: DraftedNetwork) -> str:
    return ", clip_norm: 1.0" if network.clip else ""


def _short(number: float) -> str:
    return f"{number:g}"


# What all say


def _stated(
    seen: Survey,
    network: DraftedNetwork,
    side: int,
    *,
    root: str,
    name: str,
    role: str,
    more: MorePictures | None = None,
    views: int | None = None,
) -> str:
    """From what was seen to the network."""
    return f"""\
{_offline(network)}{_seen(seen, more)}
# yaml-language-server: $schema={SCHEMA_FILE}
schema_version: 1
name: {name}
role: {role}
{_data(seen, side, root, more)}
{_augment(side, views=views)}
# {network.why}
model: {network.model}"""


def _seen(seen: Survey, more: MorePictures | None = None) -> str:
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


def _data(seen: Survey, side: int, root: str, more: MorePictures | None = None) -> str:
    own_val = "val" in seen.counts
    lines = [f"# kept at {side} pixels: {_why_kept(side, seen)}"]
    if "test" not in seen.counts:
        lines.append("# no test/ folder: a fifth of each class is set aside for testing, the same in all three recipes")
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
    if not expanded(root).is_absolute():
        lines.append("# root is looked for from the folder in which a command is typed")
    place = json.dumps(root, ensure_ascii=False)
    lines.append(f"data: {{name: folder, root: {place}, image_size: {side}{fraction}{test}{beside}}}")
    return "\n".join(lines)


def _why_kept(side: int, seen: Survey) -> str:
    if seen.side > LOSES_DETAIL * side:
        return "the largest usual size"
    return "they are smaller: enlarged" if side > LOSES_DETAIL * seen.side else "the usual size nearest to theirs"


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


def batch_size(images: int) -> int:
    """Larger for more pictures."""
    return 32 if images < FEW else 64 if images < 10 * FEW else 128


def set_aside(seen: Survey) -> dict[str, int]:
    """Without folders of their own, so many test and validation images are taken from the training images."""
    sizes, taken = np.array(seen.per_class, dtype=np.int64), dict[str, int]()
    for split, share in (("test", _TEST_FRACTION), ("val", _VAL_FRACTION)):
        if split not in seen.counts:
            counts = stratified_counts(sizes, share)
            sizes, taken[split] = sizes - counts, int(counts.sum())
    return taken


def labelled_pictures(seen: Survey) -> int:
    """Training pictures that are left when some are set aside."""
    return max(1, seen.counts["train"] - sum(set_aside(seen).values()))


def _steps(images: int, batch: int) -> int:
    return max(1, steps_per_epoch(images, batch))


def _epochs(steps: int, wanted: int, *, most: int) -> int:
    """So many that they make about ``wanted`` steps, of ``steps`` each."""
    return max(5, min(most, round(wanted / steps)))
