"""JSON files that carry the SHA-256 of their own content, so that an altered value is an error and never a number."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ltbench.errors import UserError
from ltbench.files import REMEDY, json_digest, plain, read_json, write_json

DIGEST = "digest"
"""The key that holds the SHA-256 of the canonical JSON of all others."""


def sealed(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return a value as JSON keeps it, with its digest added or renewed."""
    content = {name: own for name, own in plain(value).items() if name != DIGEST}
    return {**content, DIGEST: json_digest(content)}


def write_sealed(path: Path, value: Mapping[str, Any], *, durable: bool = False) -> None:
    """Write a value and its digest as JSON; see `write_json`."""
    write_json(path, sealed(value), durable=durable)


def read_sealed(path: Path) -> dict[str, Any]:
    """Return what `write_sealed` wrote, without the digest.

    Raises
    ------
    UserError : missing, corrupt, or altered since it was written, naming the file
    """
    value = read_json(path)
    if not isinstance(value, dict):
        raise UserError(f"{path} holds no named values; {REMEDY}")
    return unsealed(value, path)


def unsealed(value: Mapping[str, Any], source: Path) -> dict[str, Any]:
    """Return a sealed value without its digest.

    Raises
    ------
    UserError : the digest is not that of the rest
    """
    content = {name: own for name, own in value.items() if name != DIGEST}
    if value.get(DIGEST) != json_digest(content):
        raise UserError(f"{source} was altered: its digest is not that of its content; {REMEDY}")
    return content
