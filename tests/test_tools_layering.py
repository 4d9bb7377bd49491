"""The packages of tools/: who may import whom."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TOOLS = ROOT / "tools"

# One rule: a module imports from its own package and from those that stand behind it here; no
# module imports, through whatever others, itself.  The two studies know nothing of each other.
PACKAGES = {
    "running": set(),
    "report": set(),
    "contenders": set(),
    "rate_distortion": {"running", "report", "contenders"},
    "motion_study": {"running", "report"},
    "link_study": {"running", "report", "contenders"},
    "make": {"running"},
    "gallery": {"report", "contenders", "rate_distortion"},
    "adapters": set(),
    "site": set(),
    "sweep": {"running"},
    "anatomy": {"running"},
    "benchmark": {"running", "report", "contenders"},
    "compare": {"rate_distortion"},
    "ablation": {"running", "contenders", "rate_distortion"},
}


def modules() -> dict[str, Path]:
    """List all modules by their dotted names under `tools`."""
    found = {}
    for path in sorted(TOOLS.rglob("*.py")):
        parts = path.relative_to(TOOLS).with_suffix("").parts
        found[".".join(part for part in parts if part != "__init__")] = path
    del found[""]
    return found


MODULES = modules()


def imports(path: Path, package: str = "tools") -> set[str]:
    """Find the modules of a package that a file imports, anywhere in it, by their dotted names."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: a relative import"
            assert node.module is not None
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    inside = {name.removeprefix(f"{package}.") for name in found if name.startswith(f"{package}.")}
    return inside & set(MODULES) if package == "tools" else inside


def test_every_module_lies_in_a_package_of_the_list() -> None:
    assert {name.partition(".")[0] for name in MODULES} == set(PACKAGES)


@pytest.mark.parametrize("name", sorted(MODULES))
def test_imports_go_one_way(name: str) -> None:
    package = name.partition(".")[0]
    others = {other.partition(".")[0] for other in imports(MODULES[name])}
    assert others <= {package} | PACKAGES[package]


def test_the_list_has_no_circle() -> None:
    known: set[str] = set()
    for package, allowed in PACKAGES.items():
        assert allowed <= known, package
        known.add(package)


def test_no_module_imports_itself_through_others() -> None:
    left = {name: imports(path) - {name} for name, path in MODULES.items()}
    while left:
        free = {name for name, needed in left.items() if not needed & set(left)}
        assert free, f"a circle among {sorted(left)}"
        left = {name: needed for name, needed in left.items() if name not in free}


def test_the_library_knows_nothing_of_the_tools() -> None:
    for path in (ROOT / "codec").rglob("*.py"):
        assert not imports(path), path
