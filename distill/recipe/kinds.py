"""The objectives that a recipe may name: what each one minimises, asks of a teacher, and has for settings."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, get_args

from distill.errors import UsageError
from distill.recipe.describe import SchemaKey, describe_schema
from distill.recipe.objectives import ObjectiveSpec
from distill.recipe.shape import closest
from distill.recipe.terms import TermSpec

__all__ = ["ObjectiveKind", "describe_objective", "list_objectives"]

_SHARED = {"kind", "add", "class_weights", "from_epoch", "until_epoch", "ce_from_epoch", "standardize", "options"}
"""Settings that a table of all kinds leaves out: they are alike everywhere, and off."""
_SOURCE = re.compile(r"\s*\(((?:arXiv:[\d., ]+|[A-Z]+ \d{4}))\)\.?$")


@dataclass(frozen=True)
class ObjectiveKind:
    """One value of ``objective.kind``.

    Attributes:
        asks: Of a teacher: ``nothing``, ``logits``, ``pooled features`` or ``feature maps``, by its defaults.
        from_bank: Whether a bank can answer that; a live teacher answers all.
        minimises: In a line, beside ``ce_weight * CE(labels)``.
        source: The paper; empty where there is none.
        settings: Its own, with their defaults.
    """

    kind: str
    asks: str
    from_bank: bool
    minimises: str
    source: str
    settings: dict[str, Any]


def list_objectives() -> tuple[ObjectiveKind, ...]:
    """Every objective of the schema, in its order: on labels, on logits, on features, one's own.

    Example:
        >>> kinds = {each.kind: each for each in list_objectives()}
        >>> kinds["kd"].asks, kinds["kd"].settings
        ('logits', {'ce_weight': 0.1, 'kd_weight': 0.9, 'temperature': 4.0})
    """
    return tuple(_kind(spec, kind) for spec in get_args(get_args(ObjectiveSpec)[0]) for kind in _names(spec))


def describe_objective(kind: str) -> tuple[ObjectiveKind, tuple[SchemaKey, ...]]:
    """One of them, with every key that it takes.

    Raises:
        UsageError: There is no such kind.
    """
    kinds = {each.kind: each for each in list_objectives()}
    if kind not in kinds:
        close = closest(kind, kinds)
        raise UsageError(
            f"no objective {kind!r}",
            hint=f"did you mean {close}? distill recipe objectives lists all" if close else "distill recipe objectives",
        )
    keys = [
        key
        for key in describe_schema()
        if key.path.startswith("objective.") and key.path.count(".") == 1 and (not key.variants or kind in key.variants)
    ]
    return kinds[kind], tuple(key for key in keys if key.path != "objective.kind")


def _names(spec: type[Any]) -> tuple[str, ...]:
    return get_args(spec.model_fields["kind"].annotation)


def _kind(spec: type[Any], kind: str) -> ObjectiveKind:
    term = next((each for each in spec.__mro__ if _is_term(each)), spec)
    text = " ".join((term.__doc__ or "").split())
    source = _SOURCE.search(text)
    default = spec.model_construct(kind=kind)
    settings = {
        name: getattr(default, name)
        for name, field in spec.model_fields.items()
        if name not in _SHARED and not field.is_required()
    }
    on = {name: value for name, value in settings.items() if value not in ("auto", None, 0, (), {})}
    weight = {"ce_weight": settings["ce_weight"]} if "ce_weight" in settings else {}
    return ObjectiveKind(
        kind=kind,
        asks=_asks(default),
        from_bank=default.asks_teacher and not default.needs_maps,
        minimises=_SOURCE.sub("", text).rstrip("."),
        source=source.group(1) if source else "",
        settings=weight | on,
    )


def _is_term(spec: type[Any]) -> bool:
    return spec.__name__.endswith("Term") and issubclass(spec, TermSpec) and not spec.__name__.startswith("_")


def _asks(spec: Any) -> str:
    if not spec.asks_teacher:
        return "nothing"
    if not spec.asks_features:
        return "logits"
    return "feature maps" if spec.needs_maps else "pooled features"
