"""Whether a name's last run is of another recipe than the one that begins: by the name, the newest is meant."""

from __future__ import annotations

from distill.errors import RunError
from distill.recipe import Recipe, compared_settings, of_any_seed
from distill.runs import RunFolder
from distill.runs.find import runs_in
from distill.text import brief

__all__ = ["namesake_note"]

_NAMED = 3  # settings in a line


def namesake_note(run: RunFolder, recipe: Recipe) -> str | None:
    """In what the last run of this name differs from the one that begins; None where it differs in seeds at most."""
    earlier = [each for each in runs_in(run.path.parent) if each.path != run.path]
    if not earlier:
        return None
    try:
        before, now = (compared_settings(of_any_seed(each)) for each in (earlier[-1].recipe(), recipe))
    except RunError:  # damaged: told by whoever reads it
        return None
    keys = sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
    if not keys:
        return None
    shown = [f"{key} ({brief(before.get(key))}, now {brief(now.get(key))})" for key in keys[:_NAMED]]
    more = f" and {len(keys) - _NAMED} more" if len(keys) > _NAMED else ""
    return (
        f"{recipe.name}: its last run, {earlier[-1].path}, differs in {', '.join(shown)}{more}; by its name the newest "
        "is meant: --set name=NAME keeps them apart"
    )
