"""A certificate as a file beside what it is of, with a digest of its own content, so that an edit is noticed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from distill.errors import GateMissedError, RunError, UsageError
from distill.files import in_the_way, json_sha256, read_json, write_json
from distill.results.certificate import Certificate

__all__ = ["EDITED", "certificate_of", "is_sealed", "place_for", "read_certificate", "write_certificate"]

EDITED = "was edited after it was written: its content does not give its seal"
_SUFFIX, _PLAIN = ".certificate.json", "certificate.json"


def place_for(file: Path, out: str | Path | None, *, overwrite: bool) -> Path:
    """Where a file's certificate goes.

    Raises:
        UsageError: Something is there that is no certificate, or the name is none of a certificate's.
    """
    path = file.with_name(file.stem + _SUFFIX) if out is None else Path(out)
    if path.suffix != ".json" or path.is_dir():
        raise UsageError(f"{path}: a certificate is a JSON file", hint=f"--out {file.with_name(_PLAIN)}")
    if above := in_the_way(path):
        raise UsageError(f"{path}: {above} is no folder", hint="another place with --out")
    if overwrite or not path.exists():
        return path
    try:
        read_certificate(path)
    except (RunError, GateMissedError) as error:
        raise UsageError(f"{path} is there, and is no certificate", hint="another name, or --overwrite") from error
    return path


def certificate_of(file: Path) -> Path:
    """The certificate beside a file: its own, or the folder's one.

    Raises:
        UsageError: There is none.
    """
    for path in (file.with_name(file.stem + _SUFFIX), file.with_name(_PLAIN)):
        if path.exists():
            return path
    raise UsageError(f"{file} has no certificate beside it", hint=f"distill certify {file} writes one")


def write_certificate(certificate: Certificate, path: Path) -> None:
    """Write it, with its seal.

    Raises:
        DistillError: It cannot be written there.
    """
    tree = certificate.to_json()
    write_json(path, tree | {"seal": json_sha256(tree)})


def is_sealed(tree: dict[str, Any]) -> bool:
    """Whether a document has the seal of its content."""
    return tree.get("seal") == json_sha256({key: value for key, value in tree.items() if key != "seal"})


def read_certificate(path: Path) -> Certificate:
    """Read a certificate whose seal holds.

    Raises:
        UsageError: There is no such file.
        RunError: It is damaged, or no certificate.
        GateMissedError: It was edited.
    """
    hint = "write it again: distill certify FILE.onnx"
    if not path.exists():
        raise UsageError(f"{path}: no such file", hint=hint)
    tree = read_json(path, hint=hint)
    if "certificate" not in tree or "seal" not in tree:
        raise RunError(f"{path} is no certificate of distill's", hint=hint)
    if not is_sealed(tree):
        raise GateMissedError(f"{path} {EDITED}", hint=hint)
    del tree["seal"]
    try:
        return Certificate.model_validate_json(json.dumps(tree))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(each) for each in first["loc"])
        raise RunError(f"{path}: damaged: {place}: {first['msg']}", hint=hint) from error
