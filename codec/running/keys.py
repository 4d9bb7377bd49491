"""Keys of jobs: names that say what a result depends on, files by their content."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from codec.models.preprocessing import default_preprocessing
from codec.models.sources import is_file

__all__ = ["file_hash", "key_of", "weights_identity"]


@cache
def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def weights_identity(model: str, weights: str, preprocessing: Path | None) -> object:
    """Return what a result depends on by its weights: of a file the content, and how frames become
    the input where that is left to the name of the file.

    Args:
        model: a name or a file.
        weights: a word or a file, as of `load_model`.
        preprocessing: file that says how frames become the input, if there is one.

    Raises:
        ModelError: there is no such model.
    """
    if not Path(weights).is_file():
        return weights
    content = file_hash(Path(weights))
    if preprocessing is not None or is_file(model):
        return content
    return [content, asdict(default_preprocessing(model, native=False, weights=weights))]


def key_of(kind: str, readable: str, identity: Mapping[str, Any]) -> str:
    """Name a job so that people can find it, and apart from every other one.

    Args:
        kind: of job.
        readable: what people look for; of it what can stand in a file name.
        identity: all that the result depends on, as JSON can say it.
    """
    canonical = json.dumps([kind, identity], sort_keys=True).encode()
    slug = re.sub(r"[^A-Za-z0-9.=+-]+", "_", readable)[:80]
    return f"{slug}-{hashlib.sha256(canonical).hexdigest()[:16]}"
