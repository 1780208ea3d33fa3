"""Budget first: shapes that fit are measured before they are trained, and a file with its certificate comes out."""

from __future__ import annotations

from distill.results.search import SearchReport
from distill.searches.verbs import search

__all__ = ["SearchReport", "search"]
