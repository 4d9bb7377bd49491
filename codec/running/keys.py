"""Keys of jobs: names that say what a result depends on, files by their content."""

import hashlib
import json
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

__all__ = ["file_hash", "key_of"]


@cache
def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
