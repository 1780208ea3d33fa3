"""What building a network raises, in a user's terms."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from distill.errors import MissingError, UsageError
from distill.recipe.model_specs import ModelSpec
from teachers.mistakes import WeightsUnavailableError

__all__ = ["as_user_errors"]

_NETWORK_MODULES = {"huggingface_hub", "httpx", "httpx2", "requests", "urllib3"}
_NO_WEIGHTS = (
    "train from scratch: --set model.weights=none; or name a downloaded file: --set model.weights=FILE.safetensors; "
    "or set HF_ENDPOINT to a mirror of the Hugging Face hub"
)


@contextmanager
def as_user_errors(spec: ModelSpec) -> Iterator[None]:
    """What builders raise, in a user's terms; the rest is a bug and keeps its traceback."""
    try:
        yield
    except WeightsUnavailableError as error:
        raise MissingError(f"model.weights: {error}", hint=_NO_WEIGHTS) from error
    except Exception as error:
        if _is_network(error):  # first: some of the hub's errors are ValueErrors too
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            message = f"model.weights: the weights of {spec.name} could not be fetched ({reason})"
            raise MissingError(message, hint=_NO_WEIGHTS) from error
        if isinstance(error, ValueError):
            raise UsageError(f"model {spec.name}: {error}") from error
        raise


def _is_network(error: Exception) -> bool:
    families = {kind.__module__.split(".")[0] for kind in type(error).__mro__}
    return isinstance(error, OSError) or bool(families & _NETWORK_MODULES)
