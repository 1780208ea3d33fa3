"""Where timm's pretrained weights are: already on this machine, one download away, or out of reach."""

from __future__ import annotations

import os
import socket
import urllib.request
from urllib.parse import urlsplit

from timm.models import get_pretrained_cfg

from teachers.mistakes import WeightsUnavailableError

__all__ = ["weights_overlay"]

PROBE_SECONDS = 5.0


def weights_overlay(name: str) -> dict[str, str]:
    """What to lay over timm's pretrained config of ``name``: the cached file, or nothing when it can be downloaded.

    Without this, a machine without network repeats its attempts for most of a minute, for a cached file too.

    Raises:
        WeightsUnavailableError: timm has no weights by this name, or they are neither cached nor reachable.
    """
    config = get_pretrained_cfg(name)
    if config is None or not (config.hf_hub_id or config.url or config.file):
        raise WeightsUnavailableError(f"timm has no pretrained weights for {name}")
    if not config.hf_hub_id or config.custom_load or config.hf_hub_filename:
        return {}  # timm fetches these its own way
    cached = _cached(config.hf_hub_id)
    if cached is not None:
        return {"file": cached}
    _probe(name)
    return {}


def _cached(repository: str) -> str | None:
    from huggingface_hub import try_to_load_from_cache

    name, _, revision = repository.partition("@")
    found = try_to_load_from_cache(name, "model.safetensors", revision=revision or None)
    return found if isinstance(found, str) else None


def _probe(name: str) -> None:
    """Open and close one connection to the hub, or to the proxy on the way to it."""
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}:
        raise WeightsUnavailableError(f"the weights of {name} are not cached, and HF_HUB_OFFLINE is set")
    endpoint = urlsplit(os.environ.get("HF_ENDPOINT") or "https://huggingface.co")
    proxy = urllib.request.getproxies().get(endpoint.scheme)
    if proxy and not urllib.request.proxy_bypass(endpoint.hostname or ""):
        via = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    else:
        via = endpoint
    port = via.port or (443 if via.scheme == "https" else 80)
    try:
        socket.create_connection((via.hostname, port), timeout=PROBE_SECONDS).close()
    except OSError as error:
        raise WeightsUnavailableError(
            f"the weights of {name} are not cached, and {via.hostname} cannot be reached ({error})"
        ) from error
