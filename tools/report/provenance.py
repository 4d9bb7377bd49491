"""Where a measurement comes from: command, versions, machine, commit; and what memory it took."""

import platform
import re
import shlex
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import av
import click

from codec import __version__
from codec.format.constants import FORMAT_VERSION

__all__ = [
    "command",
    "commit",
    "machine",
    "peak_memory",
    "reset_peak_memory",
    "stamp",
    "versions",
    "warn_of_other_code",
]

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("torch", "torchvision", "av", "numpy", "constriction", "scipy", "nncodec")
STATUS = Path("/proc/self/status")
RESET = Path("/proc/self/clear_refs")


def stamp() -> dict[str, Any]:
    """Return date, commit, versions and machine, as JSON can say them."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "versions": versions(),
        "machine": machine(),
    }


def command(module: str, arguments: Sequence[str]) -> str:
    """Give a command as typed, but paths by name only: whose folders they are in is nobody's
    affair.
    """
    shown = []
    for argument in arguments:
        option, rest = re.fullmatch(r"(--?[\w-]+=|-\w(?=/)|)(.*)", argument, re.DOTALL).groups()  # type: ignore[union-attr]
        shown.append(option + (Path(rest).name if "/" in rest and "://" not in rest else rest))
    return shlex.join(["python", "-m", module, *shown])


@lru_cache(maxsize=1)
def versions() -> dict[str, str]:
    """Return the versions of the project, its format, Python, and what does the arithmetic."""
    found = {
        "latent-motion-codec": __version__,
        "format": str(FORMAT_VERSION),
        "python": platform.python_version(),
    }
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    found["libavcodec"] = ".".join(map(str, av.library_versions["libavcodec"]))
    return found


@lru_cache(maxsize=1)
def machine() -> dict[str, Any]:
    """Return processor, cores and system; no name that would tell whose it is."""
    model = platform.processor() or platform.machine()
    listing = Path("/proc/cpuinfo")
    if listing.exists():
        for line in listing.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    return {"processor": model, "system": f"{platform.system()} {platform.machine()}"}


@lru_cache(maxsize=1)
def commit() -> str:
    """Return the commit of this tree, with `+` behind it if files differ; "" without git."""

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no", "--", "codec", "tools")
        return git("rev-parse", "--short=12", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return ""


def warn_of_other_code(results: Iterable[Mapping[str, Any]]) -> None:
    """Say so if results that were kept, each with its stamp, are not of this very code."""
    commits = {result["commit"] for result in results}
    if commits - {commit()} or any(one.endswith("+") for one in commits):
        click.echo(
            f"warning: measured at the commits {', '.join(sorted(commits))} (+: with changes), now "
            f"{commit()}; delete jobs/ in the folder to measure all with this code",
            err=True,
        )


def reset_peak_memory() -> None:
    """Start counting anew, where the system can (Linux); elsewhere the peak is the process's."""
    try:
        RESET.write_text("5")
    except OSError:
        return


def peak_memory() -> float | None:
    """Return the largest resident size of this process since the reset, in MiB; None if unknown."""
    try:
        for line in STATUS.read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    return None
