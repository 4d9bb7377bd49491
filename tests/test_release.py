"""What a release is made of: one version, metadata that hold, and what the two archives contain."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email import message_from_bytes
from importlib.util import find_spec
from pathlib import Path

import pytest

import codec

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
NAME = f"latent_motion_codec-{codec.__version__}"


def test_the_version_is_said_once() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", codec.__version__)
    assert "version" in PROJECT["dynamic"]
    assert "version" not in PROJECT
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.search(r"^version: (.*)$", citation, re.MULTILINE)[1] == codec.__version__
    assert re.search(r"^license: (.*)$", citation, re.MULTILINE)[1] == PROJECT["license"]


def test_the_changelog_has_a_place_for_it() -> None:
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    headings = re.findall(r"^## (.*)$", changes, re.MULTILINE)
    assert headings[0] == "Unreleased"
    released = [heading.partition(" ")[0] for heading in headings[1:]]
    assert all(re.fullmatch(r"\d+\.\d+\.\d+", version) for version in released)


def test_every_supported_python_is_named() -> None:
    lowest = re.fullmatch(r">=3\.(\d+)", PROJECT["requires-python"])[1]
    named = re.findall(r":: Python :: 3\.(\d+)", "\n".join(PROJECT["classifiers"]))
    assert named == [str(minor) for minor in range(int(lowest), int(named[-1]) + 1)]


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a wheel and a source distribution."""
    if not all(find_spec(name) for name in ("build", "hatchling", "twine")):
        pytest.skip("what releases are made with is in the extra `release`")
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    return folder


@pytest.mark.slow
def test_the_wheel_holds_the_library_and_nothing_else(archives: Path) -> None:
    with zipfile.ZipFile(archives / f"{NAME}-py3-none-any.whl") as wheel:
        names = wheel.namelist()
        metadata = message_from_bytes(wheel.read(f"{NAME}.dist-info/METADATA"))
        points = wheel.read(f"{NAME}.dist-info/entry_points.txt").decode()
    assert {name.partition("/")[0] for name in names} == {"codec", f"{NAME}.dist-info"}
    tracked = subprocess.run(
        ["git", "ls-files", "codec"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.split()
    if tracked:  # no history in a source distribution
        assert {name for name in names if name.startswith("codec/")} == set(tracked)
    assert {"codec/py.typed", "codec/__init__.pyi", "codec/format/tables.json"} <= set(names)
    assert sum(name.endswith(".safetensors") for name in names) == 5
    assert f"{NAME}.dist-info/licenses/LICENSE" in names
    assert "lmc = codec.cli:main" in points
    assert metadata["Version"] == codec.__version__
    assert metadata["License-Expression"] == PROJECT["license"]
    assert metadata["Description-Content-Type"] == "text/markdown"


@pytest.mark.slow
def test_the_source_holds_what_its_tests_need(archives: Path) -> None:
    with tarfile.open(archives / f"{NAME}.tar.gz") as source:
        names = {name.removeprefix(f"{NAME}/") for name in source.getnames()}
    top = {name.partition("/")[0] for name in names}
    assert {"codec", "tools", "tests", "bitstreams"} <= top
    assert {"README.md", "CHANGELOG.md", "CITATION.cff", "LICENSE", "pyproject.toml"} <= top
    assert not any(part in name for name in names for part in ("__pycache__", ".so", ".lmc.tmp"))
    for path in (ROOT / "tests").glob("*.py"):
        assert f"tests/{path.name}" in names


@pytest.mark.slow
def test_both_pass_the_check_of_the_index(archives: Path) -> None:
    command = [sys.executable, "-m", "twine", "check", "--strict", *map(str, archives.iterdir())]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout
