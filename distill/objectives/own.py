"""A loss of the user's own: it is given what it names among its arguments, and is tried before a run begins."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from distill.code import call_code, find_code
from distill.data.batches import Batch
from distill.errors import UsageError
from distill.objectives.objective import NetworkOutput, RequiredOutputs, Term, TermContext
from distill.objectives.pairs import stage_shape
from distill.recipe.objectives import OwnLabelsObjective, OwnTerm

__all__ = ["GIVEN", "LOSS_KEY", "OwnLoss"]

LOSS_KEY = "objective.name"
GIVEN = ("student", "teacher", "labels", "student_features", "teacher_features")
_WANTED = f"loss({', '.join(GIVEN)}, **options), of which it takes what it names, gives () or one for each image (B,)"
_TRIED = 4  # images


class OwnLoss(Term):
    """``own_weight`` * a function of one's own; a class is made once, and what it holds as a module is trained."""

    def __init__(self, spec: OwnTerm | OwnLabelsObjective, context: TermContext) -> None:
        super().__init__()
        self.weights = {"own": spec.own_weight}
        self._name, self._mixes = spec.name, context.mixes
        student, teacher = _shapes(spec, context)
        self.requires = RequiredOutputs(
            teacher_logits=spec.asks_teacher, student_features=tuple(student), teacher_features=tuple(teacher)
        )
        found = find_code(spec.name, key=LOSS_KEY)
        if isinstance(found, type):
            known = {"student_shapes": student, "teacher_shapes": teacher, "classes": context.classes}
            named = _parameters(found) or {}
            made_of = {name: each for name, each in known.items() if name in named} | spec.options.values
            found, self._options = call_code(found, spec.name, LOSS_KEY, **made_of), {}
        else:
            self._options = spec.options.values
        if not callable(found):
            raise UsageError(f"{LOSS_KEY}: {spec.name} is {type(found).__name__}", hint=_WANTED)
        held = _held(found)
        self._loss: Callable[..., Any] = copy.deepcopy(found) if held else found
        if not isinstance(self._loss, nn.Module):  # that is registered as it is
            kept = _held(self._loss)
            self.held = nn.ModuleList(each for each in kept if isinstance(each, nn.Module))
            self.held_parameters = nn.ParameterList(each for each in kept if isinstance(each, nn.Parameter))
        self._named = _named(self._loss)
        if unknown := _not_given(self._loss, self._options):
            raise UsageError(
                f"{LOSS_KEY}: {self._name} asks for {', '.join(unknown)}: a loss is given what it names, of "
                f"{', '.join(GIVEN)}, and its options",
                hint="name its parameters so; one of PyTorch's: lambda student, labels: loss(student, labels)",
            )
        if both := set(self._named) & set(self._options):
            raise UsageError(
                f"objective.options: {', '.join(sorted(both))}: {self._name} is given that by distill", hint=_WANTED
            )
        self._refuse_unasked(spec)
        if context.classes:
            self._try(context)

    @property
    def asks_labels(self) -> bool:
        """Whether it looks at labels."""
        return "labels" in self._named

    def losses(self, student: NetworkOutput, teacher: NetworkOutput, batch: Batch) -> dict[str, Tensor]:
        with torch.autocast(student.logits.device.type, enabled=False):
            return {"own": self._given(self._loss, student, teacher if self.requires else None, batch).mean()}

    def _given(
        self, loss: Callable[..., Any], student: NetworkOutput, teacher: NetworkOutput | None, batch: Batch
    ) -> Tensor:
        own = self._called(loss, student, teacher, batch.labels)
        if batch.mix is None or not self.asks_labels:
            return own
        partner = self._called(loss, student, teacher, batch.mix.partner_labels)
        weight = batch.mix.weight.float()
        return weight * own + (1.0 - weight) * partner

    def _called(
        self, loss: Callable[..., Any], student: NetworkOutput, teacher: NetworkOutput | None, labels: Tensor
    ) -> Tensor:
        known: dict[str, Any] = {
            "student": student.logits.float(),
            "labels": labels,
            "student_features": {name: each.float() for name, each in student.features.items()},
        }
        if teacher is not None:
            known["teacher"] = teacher.logits.detach().float()
            known["teacher_features"] = {name: each.detach().float() for name, each in teacher.features.items()}
        given = {name: known[name] for name in self._named}
        found = call_code(loss, self._name, LOSS_KEY, **given, **self._options)
        if not isinstance(found, Tensor) or found.shape not in ((), (len(labels),)):
            shape = f" of shape {tuple(found.shape)}" if isinstance(found, Tensor) else ""
            raise UsageError(f"{LOSS_KEY}: {self._name} gave {type(found).__name__}{shape}", hint=_WANTED)
        return found.float()

    def _refuse_unasked(self, spec: OwnTerm | OwnLabelsObjective) -> None:
        for name in self._named:
            if name.startswith("teacher") and not spec.asks_teacher:
                raise UsageError(
                    f"{LOSS_KEY}: {self._name} takes {name}, and objective {spec.kind} asks no teacher",
                    hint="objective.kind: python, and a teacher: section",
                )
            if name.endswith("features") and not getattr(self.requires, name):
                raise UsageError(
                    f"{LOSS_KEY}: {self._name} takes {name}, and objective.features names no stage",
                    hint="--set objective.features=[pooled]; distill models NAME lists the stages",
                )

    def _try(self, context: TermContext) -> None:
        """One batch of random answers: what cannot be learned from is told before a run's folder is there."""
        student = _by_chance(context.classes, context.student, self.requires.student_features, learns=True)
        teacher = _by_chance(context.classes, context.teacher, self.requires.teacher_features, learns=False)
        labels = torch.randint(context.classes, (_TRIED,))
        loss = _copied(self._loss)  # what it remembers of answers by chance is forgotten
        found = self._called(loss, student, teacher if self.requires else None, labels)
        if not found.requires_grad:
            raise UsageError(
                f"{LOSS_KEY}: {self._name} does not depend on the student: nothing can be learned from it",
                hint="work it out of student (or student_features) with torch, without detach() or item()",
            )
        if self._mixes and self.asks_labels and found.shape == ():
            raise UsageError(
                f"{LOSS_KEY}: {self._name} gives one number, and augment mixes images whose labels count by shares",
                hint="let it give one for each image, (B,); or turn off augment.mixup and augment.cutmix",
            )


def _shapes(
    spec: OwnTerm | OwnLabelsObjective, context: TermContext
) -> tuple[dict[str, tuple[int, ...]], dict[str, tuple[int, ...]]]:
    """Of the student's stages that it is given, and of the teacher's."""
    if not isinstance(spec, OwnTerm):
        return {}, {}
    return (
        {name: stage_shape(context.student, name, spec, "student") for name in spec.features},
        {name: stage_shape(context.teacher, name, spec, "teacher") for name in spec.teacher_stages},
    )


def _held(loss: Any) -> list[nn.Module | nn.Parameter]:
    """The modules and parameters in a loss's attributes, which are trained with the network; of a module, itself."""
    if isinstance(loss, nn.Module):
        return [loss]
    return [found for each in getattr(loss, "__dict__", {}).values() for found in _within(each)]


def _within(value: Any) -> Iterator[nn.Module | nn.Parameter]:
    if isinstance(value, nn.Module | nn.Parameter):
        yield value
    elif isinstance(value, Mapping):
        yield from (found for each in value.values() for found in _within(each))
    elif isinstance(value, list | tuple):
        yield from (found for each in value for found in _within(each))


def _copied(loss: Callable[..., Any]) -> Callable[..., Any]:
    try:
        return copy.deepcopy(loss)
    except Exception:  # it holds what cannot be copied, as a file or a lock
        return loss


def _parameters(loss: Callable[..., Any]) -> Mapping[str, inspect.Parameter] | None:
    """None of a callable without a signature."""
    try:
        return inspect.signature(loss.forward if isinstance(loss, nn.Module) else loss).parameters
    except (TypeError, ValueError):
        return None


def _named(loss: Callable[..., Any]) -> tuple[str, ...]:
    """Which of what can be given it takes by name; of a callable without a signature, what most take."""
    parameters = _parameters(loss)
    if parameters is None:
        return ("student", "teacher", "labels")
    return tuple(name for name in GIVEN if name in parameters)


def _not_given(loss: Callable[..., Any], options: Mapping[str, Any]) -> list[str]:
    """The parameters that it cannot do without, and that nothing has."""
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    asked = [each for each in (_parameters(loss) or {}).values() if each.kind in named]
    needed = [each.name for each in asked if each.default is inspect.Parameter.empty]
    return [name for name in needed if name not in GIVEN and name not in options]


def _by_chance(
    classes: int, shapes: Mapping[str, tuple[int, ...]], names: tuple[str, ...], *, learns: bool
) -> NetworkOutput:
    """A network's answers to a few images."""
    logits = torch.randn(_TRIED, classes, requires_grad=learns)
    return NetworkOutput(logits, {name: torch.randn(_TRIED, *shapes[name], requires_grad=learns) for name in names})
