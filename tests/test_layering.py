"""The packages of codec/: who may import whom, and what the light entry points load."""

from __future__ import annotations

import ast
import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest

CODEC = Path(__file__).resolve().parent.parent / "codec"
STREAMS = CODEC.parent / "bitstreams" / "valid"

# One rule: a module imports from its own package and from those before it here; no module imports,
# through whatever others, itself.
PACKAGES = [
    "errors",
    "limits",
    "descriptions",
    "format",
    "link",
    "normative",
    "metrics",
    "encoding",
    "profiling",
    "models",
    "tasks",
    "files",
    "running",
    "pipeline",
    "live",
    "inspection",
    "pages",
    "planning",
    "cli",
]

# The package's face and `python -m codec` may name any module.
EXEMPT = {"", "__main__"}

# Packages of others, and those of ours whose modules may import them.
SOLE_IMPORTERS = {
    "constriction": {"normative", "encoding"},
    "av": {"files"},
    "torchvision": {"models"},
    "timm": {"models"},
    "onnx2torch": {"models"},
    "efficientnet_lite_pytorch": {"models"},
    "pycocotools": {"tasks"},
    "PIL": {"tasks"},
    "jinja2": {"pages"},
    "aioquic": {"live"},
    "cryptography": {"live"},
}


def modules() -> dict[str, Path]:
    """List all modules by their dotted names under `codec`; a package's own is its name alone."""
    found = {}
    for path in sorted(CODEC.rglob("*.py")):
        parts = path.relative_to(CODEC).with_suffix("").parts
        found[".".join(part for part in parts if part != "__init__")] = path
    return found


MODULES = modules()
WITHOUT_TORCH = [
    name
    for name in MODULES
    if name.partition(".")[0] in {"errors", "limits", "format", "link", "inspection"}
    or name
    in {
        "normative.contexts",
        "normative.range_coder",
        "normative.symbols",
        "normative.syntax",
        "encoding.code_lengths",
        "encoding.config",
        "encoding.payloads",
        "encoding.symbol_writer",
        "pipeline.options",
    }
]


def imports(path: Path) -> tuple[set[str], set[str]]:
    """Find the modules of codec and the top-level packages that a file imports, anywhere in it.

    Imports inside functions count, and so do those for type checking only: an order is about what a
    reader has to know, not only about what is loaded.
    """
    inside: set[str] = set()
    outside: set[str] = set()

    def note(name: str) -> None:
        package, _, rest = name.partition(".")
        if package != "codec":
            outside.add(package)
        elif rest in MODULES and rest not in EXEMPT:
            inside.add(rest)

    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                note(alias.name)
        elif isinstance(node, ast.ImportFrom):
            parent = ".".join(filter(None, ["codec" if node.level else "", node.module]))
            note(parent)
            for alias in node.names:  # of a package, which may be modules
                note(f"{parent}.{alias.name}")
    return inside, outside


def test_every_module_lies_in_a_package_of_the_list():
    assert {name.partition(".")[0] for name in MODULES} - EXEMPT == set(PACKAGES)


@pytest.mark.parametrize("name", sorted(set(MODULES) - EXEMPT))
def test_imports_go_down_the_list(name):
    inside, _ = imports(MODULES[name])
    place = PACKAGES.index(name.partition(".")[0])
    upwards = {other for other in inside if PACKAGES.index(other.partition(".")[0]) > place}
    assert upwards == set()


def test_no_module_imports_itself_through_others():
    left = {name: imports(path)[0] - {name} for name, path in MODULES.items() if name not in EXEMPT}
    while left:
        free = {name for name, needed in left.items() if not needed & set(left)}
        assert free, f"a circle among {sorted(left)}"
        left = {name: needed for name, needed in left.items() if name not in free}


@pytest.mark.parametrize("package", SOLE_IMPORTERS)
def test_sole_importer(package):
    importers = {
        name.partition(".")[0] for name, path in MODULES.items() if package in imports(path)[1]
    }
    assert importers == SOLE_IMPORTERS[package]


@pytest.mark.parametrize("name", WITHOUT_TORCH)
def test_source_names_no_torch(name):
    assert "torch" not in imports(MODULES[name])[1]


@pytest.mark.parametrize("name", ["constants", "primitives", "header", "packets"])
def test_headers_and_packets_need_the_standard_library_only(name):
    assert imports(MODULES[f"format.{name}"])[1] <= sys.stdlib_module_names


@pytest.mark.parametrize("name", [name for name in MODULES if name.startswith("link")])
def test_the_link_needs_the_standard_library_only(name):
    assert imports(MODULES[name])[1] <= sys.stdlib_module_names - {"socket", "threading", "time"}


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
        # what the command may be told about damage, without a decoder
        pytest.param("import codec.files.damage", id="codec.files.damage"),
        *(pytest.param(f"import codec.{name}", id=f"codec.{name}") for name in WITHOUT_TORCH),
    ],
)
def test_light_imports(code):
    assert loaded_by(code) & HEAVY == set()


def test_inspect_is_light():
    stream = min(STREAMS.glob("*.lmc"))
    assert loaded_by(command("inspect", str(stream))) & HEAVY == set()


def test_help_is_instant():
    # processor time, which other work on the machine leaves alone
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", command("--help")], capture_output=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.3
