"""For how long a recipe asks its teacher: not beyond the last term that learns from it."""

from __future__ import annotations

from distill.data.views import views_of
from distill.recipe import Recipe

__all__ = ["taught_epochs", "taught_views"]


def taught_epochs(recipe: Recipe) -> int:
    """Epochs in which the teacher is asked, from the first on; all, where a term does not end (``until_epoch``).

    One at least, though no term weighs anything: what was made of it is the shape of a bank.
    """
    epochs = recipe.train.epochs
    ends = [term.until_epoch or epochs for term in recipe.objective.terms if term.asks_teacher and term.weighs]
    return min(max(ends, default=1), epochs)


def taught_views(recipe: Recipe) -> int:
    """How many views of each image the teacher is asked about: those that these epochs show."""
    return views_of(recipe.augment, taught_epochs(recipe))
