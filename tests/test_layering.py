"""The floors of codec/: who may import whom, and what the light entry points load."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

CODEC = Path(__file__).resolve().parent.parent / "codec"
STREAMS = CODEC.parent / "bitstreams" / "valid"

FLOORS = {
    "errors": 0,
    "exact": 0,
    "bitstream": 1,
    "probability": 1,
    "quantization": 1,
    "transform": 1,
    "motion": 1,
    "profile": 1,
    "features": 2,
    "entropy": 2,
    "reconstruction": 2,
    "encoder": 3,
    "rate_control": 3,
    "rate_distortion": 3,
    "task_refinement": 3,
    "motion_search": 3,
    "decoder": 3,
    "video": 4,
    "submodels": 4,
    "calibration": 4,
    "sensitivity": 4,
    "container": 4,
    "output": 4,
    "metrics": 5,
    "calibrator": 5,
    "pipeline": 5,
    "tensor_file": 5,
    "cli": 6,
}

# Imports within one floor, importer -> imported.  On floor 1, bitstream and profile define the
# values that the arithmetic is about; reconstruction turns the symbols of entropy into tensors.
SAME_FLOOR = {
    "motion": {"bitstream"},
    "profile": {"bitstream", "probability"},
    "quantization": {"bitstream"},
    "transform": {"profile"},
    "reconstruction": {"entropy"},
    "encoder": {"rate_distortion", "task_refinement"},
    "task_refinement": {"rate_distortion"},
    "sensitivity": {"calibration", "submodels"},
    "calibrator": {"metrics"},
    "pipeline": {"metrics"},
}

# The package's face and `python -m codec` may name any module.
EXEMPT = {"__init__", "__main__"}

SOLE_IMPORTERS = {"constriction": {"entropy"}, "av": {"video"}, "torchvision": {"submodels"}}

WITHOUT_TORCH = ["errors", "bitstream", "probability", "entropy"]


def modules() -> dict[str, Path]:
    return {path.stem: path for path in sorted(CODEC.glob("*.py"))}


def imports(path: Path) -> tuple[set[str], set[str]]:
    """Find the modules of codec and the top-level packages that a file imports, anywhere in it.

    Imports inside functions count, and so do those for type checking only: a floor is about what a
    reader has to know, not only about what is loaded.
    """
    inside: set[str] = set()
    outside: set[str] = set()

    def note(name: str) -> None:
        package, _, rest = name.partition(".")
        if package != "codec":
            outside.add(package)
        elif rest and not rest.startswith("__"):  # __version__ is the package's own
            inside.add(rest.partition(".")[0])

    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                note(alias.name)
        elif isinstance(node, ast.ImportFrom):
            parent = ".".join(filter(None, ["codec" if node.level else "", node.module]))
            if parent == "codec":
                for alias in node.names:
                    note(f"codec.{alias.name}")
            else:
                note(parent)
    return inside, outside


def test_every_module_has_a_floor_and_every_floor_its_modules():
    assert set(modules()) == set(FLOORS) | EXEMPT


@pytest.mark.parametrize("name", FLOORS)
def test_imports_lower_floors_only(name):
    inside, _ = imports(CODEC / f"{name}.py")
    unknown = inside - set(FLOORS)
    assert not unknown, f"{name} imports {unknown}, which have no floor"
    allowed = {other for other, floor in FLOORS.items() if floor < FLOORS[name]}
    assert inside - allowed - SAME_FLOOR.get(name, set()) == set()


@pytest.mark.parametrize("name", SAME_FLOOR)
def test_imports_within_a_floor_are_needed_and_one_way(name):
    assert imports(CODEC / f"{name}.py")[0] >= SAME_FLOOR[name]
    for other in SAME_FLOOR[name]:
        assert FLOORS[other] == FLOORS[name]
        assert name not in SAME_FLOOR.get(other, set())


@pytest.mark.parametrize("package", SOLE_IMPORTERS)
def test_sole_importer(package):
    importers = {name for name, path in modules().items() if package in imports(path)[1]}
    assert importers == SOLE_IMPORTERS[package]


@pytest.mark.parametrize("name", WITHOUT_TORCH)
def test_source_names_no_torch(name):
    assert "torch" not in imports(CODEC / f"{name}.py")[1]


def test_bitstream_needs_the_standard_library_only():
    inside, outside = imports(CODEC / "bitstream.py")
    assert outside <= sys.stdlib_module_names
    assert inside <= {"errors"}


def loaded_by(code: str) -> set[str]:
    """Run code in a fresh interpreter and return the top-level packages that it has loaded."""
    report = "import json, sys\nprint(json.dumps(sorted({m.split('.')[0] for m in sys.modules})))"
    finished = subprocess.run(
        [sys.executable, "-c", f"{code}\n{report}"], capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stderr
    return set(json.loads(finished.stdout.splitlines()[-1]))


def command(*arguments: str) -> str:
    """Write the code that the console script `lmc` runs, without its exit."""
    return (
        f"import sys\nsys.argv = {['lmc', *arguments]!r}\nfrom codec.cli import main\n"
        "try:\n    main()\nexcept SystemExit as stop:\n    assert not stop.code, stop.code"
    )


HEAVY = {"torch", "torchvision", "av"}


@pytest.mark.parametrize(
    "code",
    [
        pytest.param("import codec", id="codec"),
        pytest.param("import codec.cli", id="codec.cli"),
        pytest.param(command("--help"), id="lmc --help"),
        *(pytest.param(f"import codec.{name}", id=f"codec.{name}") for name in WITHOUT_TORCH),
    ],
)
def test_light_imports(code):
    assert loaded_by(code) & HEAVY == set()


def test_inspect_is_light():
    stream = min(STREAMS.glob("*.lmc"))
    assert loaded_by(command("inspect", str(stream))) & HEAVY == set()


def test_help_is_instant():
    # The best of several runs: a busy machine slows some of them, a heavy import slows all.
    fastest = float("inf")
    for _ in range(10):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", command("--help")], capture_output=True, check=True)
        fastest = min(fastest, time.perf_counter() - start)
        if fastest < 0.3:
            return
    pytest.fail(f"lmc --help took {fastest:.2f} s at best, expected under 0.3 s")
