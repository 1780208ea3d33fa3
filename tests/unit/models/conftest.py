from __future__ import annotations

import json

import pytest
from pydantic import TypeAdapter

from distill.recipe.model_specs import ModelSpec


@pytest.fixture(scope="session")
def spec():
    """A model section as a recipe would give it."""
    adapter = TypeAdapter(ModelSpec)
    return lambda **fields: adapter.validate_json(json.dumps(fields))
