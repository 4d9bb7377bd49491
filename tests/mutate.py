"""Change the normative package in one place at a time, and see whether a test notices.

    python tests/mutate.py codec/normative/motion.py ...      default: all that is normative
    python tests/mutate.py -j 2 --every 5                     a fifth of the mutants, two at once

A mutant that all tests pass is printed, and fails the run, unless `mutants.toml` explains it.  The
streams of bitstreams/ are tried first, since they cost a second together; what they let through
meets the unit tests of its module, with ten examples of a property, and the other decoder.

Why not mutmut: it leaves module constants and decorated functions (properties, cached tables) as
they are, where half of the format's numbers stand.  Why not cosmic-ray: it starts an interpreter
and torch anew for every mutant, three seconds each, and edits the working tree.  Here a process
with everything but `codec` in it is forked, and the mutant exists in memory only.
"""

from __future__ import annotations

import argparse
import ast
import copy
import hashlib
import importlib.abc
import importlib.util
import io
import os
import resource
import sys
import time
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

PROJECT = Path(__file__).resolve().parent.parent
EXPLAINED = PROJECT / "tests" / "mutants.toml"
READING = ["constants", "primitives", "header", "packets", "profile", "tables"]
UNIT_TESTS = {
    "constants": ["format", "profile"],
    "primitives": ["format"],
    "header": ["format"],
    "packets": ["format", "streams"],
    "exact": ["exactness"],
    "decoder": ["encoder_decoder"],
    "contexts": ["syntax", "levels"],
    "symbols": ["syntax", "reconstruction"],
}
"""Of modules that have no test file of their own name."""
ENCODING = {
    *("ByteWriter", "SymbolWriter", "to_bytes", "write", "to_file", "save", "_write_tensor"),
    *("ForwardTransform", "_analysis", "_transposed", "DEFAULT_POINTS"),
}
"""What no decoder needs, wherever it stands."""
CPU_SECONDS, DATA_BYTES = 120, 6 << 30
"""A mutant that loops or allocates without end is found out too."""

SWAPS: dict[type, list[type]] = {
    ast.Lt: [ast.LtE, ast.Gt],
    ast.LtE: [ast.Lt, ast.Gt],
    ast.Gt: [ast.GtE, ast.Lt],
    ast.GtE: [ast.Gt, ast.Lt],
    ast.Eq: [ast.NotEq],
    ast.NotEq: [ast.Eq],
    ast.In: [ast.NotIn],
    ast.NotIn: [ast.In],
    ast.Is: [ast.IsNot],
    ast.IsNot: [ast.Is],
    ast.Add: [ast.Sub],
    ast.Sub: [ast.Add],
    ast.Mult: [ast.Add],
    ast.Div: [ast.Mult],
    ast.FloorDiv: [ast.Mult],
    ast.Mod: [ast.FloorDiv],
    ast.Pow: [ast.Mult],
    ast.LShift: [ast.RShift],
    ast.RShift: [ast.LShift],
    ast.BitAnd: [ast.BitOr],
    ast.BitOr: [ast.BitAnd],
    ast.BitXor: [ast.BitAnd],
    ast.And: [ast.Or],
    ast.Or: [ast.And],
}
NAMES = {"min": "max", "max": "min", "any": "all", "all": "any", "floor": "ceil", "clip": "abs"}


class Mutant(NamedTuple):
    """A module changed in one place: function, line before and after, the source of the module."""

    module: str
    where: str
    line: int
    change: str
    source: str

    @property
    def key(self) -> tuple[str, str, str]:
        return self.module, self.where, self.change


# --- making them ----------------------------------------------------------------------------------


def variants(node: ast.AST) -> Iterator[ast.AST]:
    """What may stand in the place of a node."""
    match node:
        case ast.Compare(ops=ops):
            for number, op in enumerate(ops):
                for other in SWAPS[type(op)]:
                    changed = copy.deepcopy(node)
                    changed.ops[number] = other()
                    yield changed
        case ast.BinOp(op=op) | ast.BoolOp(op=op) | ast.AugAssign(op=op):
            for other in SWAPS.get(type(op), []):
                changed = copy.deepcopy(node)
                changed.op = other()
                yield changed
        case ast.UnaryOp(op=ast.USub() | ast.Not() | ast.Invert(), operand=operand):
            yield operand
        case ast.Constant(value=bool(value)):
            yield ast.Constant(not value)
        case ast.Constant(value=int(value)):
            yield ast.Constant(value + 1)
            yield ast.Constant(value - 1)
        case ast.Constant(value=float(value)):
            yield ast.Constant(value * 2)
        case ast.IfExp(test=test, body=body, orelse=orelse):
            yield ast.IfExp(test, orelse, body)
        case ast.If(test=test):
            for changed_test in (ast.Constant(True), ast.Constant(False)):
                changed = copy.deepcopy(node)
                changed.test = changed_test
                yield changed
        case ast.Name(id=name) if name in NAMES:
            yield ast.Name(NAMES[name], ast.Load())
        case ast.Attribute(value=value, attr=name) if name in NAMES:
            yield ast.Attribute(value, NAMES[name], ast.Load())
        case ast.Expr(value=ast.Call()) | ast.Raise():
            yield ast.Pass()
        case ast.Break():
            yield ast.Continue()
        case ast.Continue():
            yield ast.Break()


def places(tree: ast.AST, where: str = "") -> Iterator[tuple[str, ast.AST, str, int | None]]:
    """(function, parent, field, index) of every node to change: no texts, types or asserts."""
    for field, value in ast.iter_fields(tree):
        if field in {
            "annotation",
            "returns",
            "decorator_list",
            "type_params",
            "msg",
            "format_spec",
        }:
            continue
        for index, child in enumerate(value if isinstance(value, list) else [value]):
            if not isinstance(child, ast.AST) or isinstance(child, ast.Assert | ast.JoinedStr):
                continue
            if isinstance(tree, ast.Raise):  # what it says
                continue
            inner = where
            if isinstance(child, ast.FunctionDef | ast.ClassDef):
                special = child.name.startswith("__") and child.name != "__post_init__"
                if child.name in ENCODING or special:
                    continue
                inner = f"{where}.{child.name}".lstrip(".")
            elif isinstance(child, ast.Assign) and ast.unparse(child.targets[0]) in ENCODING:
                continue
            yield inner, tree, field, index if isinstance(value, list) else None
            yield from places(child, inner)


def line_of(statement: ast.stmt) -> str:
    """A statement in one line, without the block that it heads."""
    text = ast.unparse(ast.fix_missing_locations(copy.deepcopy(statement)))
    return text.splitlines()[0] if hasattr(statement, "body") else " ".join(text.split())


def mutants_of(path: Path) -> Iterator[Mutant]:
    """Every mutant of a module, in the order of its source."""
    module = ".".join(path.resolve().relative_to(PROJECT).with_suffix("").parts)
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for where, parent, field, index in list(places(tree)):
        value = getattr(parent, field)
        node = value if index is None else value[index]
        choices = list(variants(node))
        if not choices:
            continue
        statement = node if isinstance(node, ast.stmt) else innermost(tree, node)
        before = line_of(statement)
        for variant in choices:
            put(parent, field, index, ast.copy_location(variant, node))
            after = line_of(variant if statement is node else statement)
            change = f"{before}  ->  {after}"
            yield Mutant(module, where, node.lineno, change, ast.unparse(tree))
            put(parent, field, index, node)


def put(parent: ast.AST, field: str, index: int | None, node: ast.AST) -> None:
    """Set one child of a node."""
    if index is None:
        setattr(parent, field, node)
    else:
        getattr(parent, field)[index] = node


def innermost(tree: ast.AST, node: ast.AST) -> ast.stmt:
    """The statement that an expression is part of."""
    around = [
        statement
        for statement in ast.walk(tree)
        if isinstance(statement, ast.stmt)
        and statement.lineno <= node.lineno
        and node.end_lineno <= statement.end_lineno
    ]
    return min(around, key=lambda statement: statement.end_lineno - statement.lineno)


# --- trying them ----------------------------------------------------------------------------------


class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Gives the mutant to whoever imports its module."""

    def __init__(self, mutant: Mutant) -> None:
        self.mutant = mutant

    def find_spec(self, name, path=None, target=None):
        if name != self.mutant.module:
            return None
        file = PROJECT / Path(*name.split(".")).with_suffix(".py")
        return importlib.util.spec_from_file_location(name, file, loader=self)

    def exec_module(self, module):
        exec(compile(self.mutant.source, module.__file__, "exec"), module.__dict__)


def streams_notice() -> bool:
    """Whether a stream of bitstreams/ does not give what the manifest says."""
    from codec import errors
    from codec.files.streams import StreamReader
    from codec.normative.decoder import Decoder

    folder = PROJECT / "bitstreams"
    manifest = tomllib.loads((folder / "manifest.toml").read_text(encoding="utf-8"))
    rows = manifest["valid"] + manifest["invalid"]
    for row in sorted(rows, key=lambda row: row["bytes"]):
        digests, found = [], None
        try:
            reader = StreamReader(io.BytesIO((folder / row["file"]).read_bytes()))
            decoder = Decoder(reader.header)
            for packet in reader:
                frame = decoder.decode(packet[1] if isinstance(packet, tuple) else packet)
                digests.append(
                    hashlib.md5(
                        b"".join(t.int().numpy().tobytes() for t in frame.latents)
                    ).hexdigest()
                )
        except errors.BitstreamError as error:
            found = type(error).__name__
        if found != row.get("error") or digests != row.get("frame_md5", digests):
            return True
    return False


def unit_tests_of(module: str) -> list[str]:
    stem = module.rpartition(".")[2]
    names = UNIT_TESTS.get(stem, [stem])
    if ".normative." in module:
        names = [*names, "reference_decoder"]
    return [f"tests/test_{name}.py" for name in names]


def attempt(mutant: Mutant, *, streams_only: bool) -> int:
    """In a process of its own: 0 if nothing notices, 1 if a stream does, 2 if a unit test does."""
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS + 5))
    resource.setrlimit(resource.RLIMIT_DATA, (DATA_BYTES, DATA_BYTES))
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    sys.meta_path.insert(0, Finder(mutant))
    try:
        if streams_notice():
            return 1
    except BaseException:
        return 1
    if streams_only:
        return 0
    import pytest

    arguments = ["-x", "-q", "-p", "no:cacheprovider", *unit_tests_of(mutant.module)]
    return 2 if pytest.main(arguments) else 0


def run(mutants: list[Mutant], jobs: int, *, streams_only: bool) -> Iterator[tuple[Mutant, int]]:
    """Try all of them, `jobs` at a time."""
    waiting, running = list(reversed(mutants)), {}
    while waiting or running:
        while waiting and len(running) < jobs:
            mutant = waiting.pop()
            child = os.fork()
            if child == 0:
                os._exit(attempt(mutant, streams_only=streams_only))
            running[child] = mutant
        child, status = os.wait()
        yield running.pop(child), os.waitstatus_to_exitcode(status)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("-j", "--jobs", type=int, default=1, help="how many at once")
    parser.add_argument("--every", type=int, default=1, help="try one mutant of so many")
    parser.add_argument("--streams", action="store_true", help="try the streams only")
    parser.add_argument("--list", action="store_true", help="print the mutants and try none")
    options = parser.parse_args()
    files = options.files or [
        *sorted((PROJECT / "codec" / "normative").glob("[!_]*.py")),
        *(PROJECT / "codec" / "format" / f"{name}.py" for name in READING),
    ]
    mutants = [mutant for file in files for mutant in mutants_of(file)][:: options.every]
    if options.list:
        for mutant in mutants:
            print(f"{mutant.module}:{mutant.line} {mutant.where}: {mutant.change}")
        return
    os.environ.setdefault("HYPOTHESIS_PROFILE", "few")
    os.chdir(PROJECT)
    sys.path[:0] = [str(PROJECT), str(PROJECT / "tests")]
    import pytest  # noqa: F401
    import torch

    torch.set_num_threads(1)
    rows = tomllib.loads(EXPLAINED.read_text(encoding="utf-8"))["mutant"]
    explained = {(row["module"], row["where"], row["change"]): row["why"] for row in rows}
    start, results = time.monotonic(), Counter()
    survivors = []
    for mutant, outcome in run(mutants, options.jobs, streams_only=options.streams):
        results[
            mutant.module, "survived" if outcome == 0 else "streams" if outcome == 1 else "tests"
        ] += 1
        if outcome == 0:
            known = mutant.key in explained
            results[mutant.module, "explained"] += known
            if not known:
                survivors.append(mutant)
                print(
                    f"survives: {mutant.module}:{mutant.line} {mutant.where}: {mutant.change}",
                    flush=True,
                )
    columns = ("streams", "tests", "survived", "explained")
    print(f"{'':32}{'mutants':>9}" + "".join(f"{name:>11}" for name in columns))
    for module in dict.fromkeys(mutant.module for mutant in mutants):
        counts = [results[module, name] for name in columns]
        print(f"{module:32}{sum(counts[:3]):9}" + "".join(f"{count:11}" for count in counts))
    print(f"{len(mutants)} mutants in {time.monotonic() - start:.0f} s")
    sys.exit(bool(survivors))


if __name__ == "__main__":
    main()
