"""The check of a .pt2 archive before torch reads it: nothing in it may make torch run code.

`torch.export.load` is not made for files of strangers: it unpickles without `weights_only` where a
member says so, takes any attribute of `torch` for an operation, evaluates expressions of sizes, and
writes names into generated Python.  Hence the members and the program are looked at first, as the
bytes that torch will read, and only what can be seen to be harmless passes: tensors, operations of
ATen, arithmetic of sizes, plain names, and tuples, lists and dicts of results.

torch finds a member whatever the case of its name, hence only such are let pass whose names are as
torch writes them; and only stored ones, since a compressed one may be of any size.
"""

from __future__ import annotations

import ast
import io
import json
import re
import zipfile
from collections.abc import Callable, Iterator
from typing import Any, Final

import torch

from codec.errors import ModelError
from codec.models.boundary import first_line

__all__ = ["check_archive"]

# Makes an error of what was found.
_Refuse = Callable[[str], ModelError]

_PROGRAM: Final = "models/model.json"
_UNPICKLED_MEMBERS: Final = ("data/weights/", "data/constants/", "data/sample_inputs/")
_OTHER_MEMBERS: Final = (
    "extra/",
    ".data/",
    "archive_format",
    "archive_version",
    "byteorder",
    "version",
)

_OPERATION: Final = re.compile(
    r"torch\.ops\.(aten|prims|torchvision)\.\w+\.\w+|torch\.sym_\w+|torch\._sym_sqrt|"
    r"_operator\.(getitem|add|sub|mul|floordiv|truediv|mod|pow|neg|eq|ne|lt|le|gt|ge|and_|or_|not_)|"
    r"math\.(ceil|floor|trunc|sqrt)"
)
_FILE_OPERATIONS: Final = ("torch.ops.aten.from_file.", "torch.ops.aten.save.")
# Sizes: 2*s0 + Max(1, s1//4), or Mul(Integer(4), Symbol('s30', positive=True, integer=True)).
_SYMBOL: Final = re.compile(r"(?:zu?f?|[suf])\d+")
_SIZE_NAME: Final = re.compile(
    r"(zu?f?|[suf])\d+|Max|Min|Mod|PythonMod|Abs|FloorDiv|CeilDiv|CleanDiv|ModularIndexing|Where|"
    r"IntTrueDiv|FloatTrueDiv|ToFloat|TruncToInt|CeilToInt|FloorToInt|RoundToInt|Eq|Ne|Lt|Le|Gt|Ge|"
    r"And|Or|Not|True|False|Symbol|Integer|Rational|Float|Add|Mul|Pow|"
    r"positive|nonnegative|negative|integer|real|zero|nonzero|infinite|finite"
)
_ARITHMETIC: Final = (
    *(ast.Expression, ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.Call, ast.keyword),
    *(ast.Name, ast.Constant, ast.Load, ast.cmpop, ast.boolop, ast.USub, ast.UAdd, ast.Not),
    *(ast.Invert, ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.Pow),
    *(ast.BitAnd, ast.BitOr),
)
_SIZE_LENGTH: Final = 2000
_POWERS: Final = 4
_LARGEST_EXPONENT: Final = 8
"""No number that these make takes time or memory worth speaking of."""
_PLAIN: Final = re.compile(r"[\w.+\-: ]*")
_CONTAINERS: Final = (None, "builtins.tuple", "builtins.list", "builtins.dict")
_ORDERED: Final = "collections.OrderedDict"


def check_archive(content: bytes, file: str) -> None:
    """Refuse an archive of `torch.export.save` that torch could not read without running code.

    Args:
        content: of the file.
        file: its name, for messages.

    Raises:
        ModelError: it is none, or holds something that is not known to be harmless.
    """
    try:
        reader = torch._C.PyTorchFileReader(io.BytesIO(content))
        members = set(reader.get_all_records())
        listed = zipfile.ZipFile(io.BytesIO(content)).infolist()
    except Exception as error:  # torch's reader, of any bytes
        raise ModelError(
            f"{file}: not an exported program ({first_line(error)}); "
            "torch.export.save(torch.export.export(model, (images,)), FILE) writes one"
        ) from error
    names = [member.filename for member in listed]
    if _PROGRAM not in members or "version" in names:  # that of torch 2.7, which is unpickled
        raise ModelError(
            f"{file}: an archive without {_PROGRAM}; export it anew with torch 2.8 or later"
        )

    def refuse(what: str) -> ModelError:
        return ModelError(
            f"{file}: {what}, which is not known to be harmless; "
            "codec.load_model(FILE, trusted=True) reads it, for those who trust whoever made it"
        )

    if not _stored(listed) or len({name.lower() for name in names}) < len(names):
        raise refuse("it holds compressed members, or several of one name")
    for member in sorted(members):
        if member == _PROGRAM or member.startswith(_OTHER_MEMBERS):
            continue
        if not member.startswith(_UNPICKLED_MEMBERS) or member != member.lower():
            raise refuse(f"it holds {member!r}")
        name = member.rpartition("/")[2]
        if name.startswith(("custom_obj_", "opaque_obj_")):
            raise refuse(f"it holds the pickled object {member!r}")
        if name.endswith(".json"):
            continue
        if name.endswith(".pt"):
            _check_pickle(reader.get_record(member), member, refuse)
    for member in sorted(members):
        if not (member.startswith("data/") and member.endswith(".json")):
            continue
        config = _parsed(reader.get_record(member), file)
        for payload in config.get("config", {}).values():
            pickled = f"{member.rpartition('/')[0]}/{payload.get('path_name')}"
            if payload.get("use_pickle"):
                if pickled not in members:
                    raise refuse(f"it lacks {pickled!r}")
                _check_pickle(reader.get_record(pickled), pickled, refuse)
        for key, text in _texts(config):
            if not _PLAIN.fullmatch(text):
                raise refuse(f"{member} says {text[:40]!r} for {key}")
    for key, text in _texts(_parsed(reader.get_record(_PROGRAM), file)):
        _check_text(key, text, refuse)


def _check_pickle(record: bytes, member: str, refuse: _Refuse) -> None:
    """Read a pickle as far as that is safe: what passes gives torch the same without this care."""
    try:
        if zipfile.is_zipfile(io.BytesIO(record)) and not _stored(
            zipfile.ZipFile(io.BytesIO(record)).infolist()
        ):
            raise ValueError("compressed")  # noqa: TRY301 - told as whatever else is wrong
        torch.load(io.BytesIO(record), weights_only=True, map_location="cpu")
    except Exception as error:  # whatever the unpickler refuses, or trips over
        raise refuse(f"{member!r} holds more than tensors") from error


def _stored(members: list[zipfile.ZipInfo]) -> bool:
    return all(member.compress_type == zipfile.ZIP_STORED for member in members)


def _parsed(record: bytes, file: str) -> Any:  # noqa: ANN401 - whatever JSON holds
    try:
        return json.loads(record)
    except ValueError as error:
        raise ModelError(f"{file}: damaged ({first_line(error)}); export it anew") from error


def _texts(value: object, key: str = "") -> Iterator[tuple[str, str]]:
    """Walk through all strings of a program with the keys that they stand under, and the keys."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield "expr_str" if key == "range_constraints" else "a name", name
            if not _is_remark(name, item):
                yield from _texts(item, name)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item, key)
    elif isinstance(value, str):
        yield key, value


def _is_remark(name: str, item: object) -> bool:
    """Whether an item is text for people, or Python that is never run: plain strings, under these
    names, where a tensor or number that had such a name would be more than that.
    """
    if name == "metadata" and isinstance(item, dict):
        return all(isinstance(text, str) for text in item.values())
    if name == "guards_code" and isinstance(item, list):
        return all(isinstance(text, str) for text in item)
    return False


def _check_text(key: str, text: str, refuse: _Refuse) -> None:
    if key == "target":
        if text.startswith(_FILE_OPERATIONS) or not _OPERATION.fullmatch(text):
            raise refuse(f"it calls {text[:60]!r}")
    elif key == "expr_str":
        if not _is_size(text):
            raise refuse(f"it has the size {text[:60]!r}")
    elif key in {"in_spec", "out_spec"}:
        _check_containers(text, refuse)
    elif not _PLAIN.fullmatch(text):
        raise refuse(f"it says {text[:60]!r} for {key}")


def _is_size(text: str) -> bool:
    """Whether an expression, which torch evaluates as Python, is arithmetic and no more, and none
    that takes for ever.
    """
    try:
        nodes = list(ast.walk(ast.parse(text.strip()[:_SIZE_LENGTH], mode="eval")))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    powers = [
        (node.right if isinstance(node, ast.BinOp) else node.args[-1])
        for node in nodes
        if (isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow))
        or (isinstance(node, ast.Call) and _called(node) == "Pow" and node.args)
    ]
    return (
        len(text) <= _SIZE_LENGTH
        and all(isinstance(node, _ARITHMETIC) for node in nodes)
        and all(
            _SIZE_NAME.fullmatch(node.id) is not None
            for node in nodes
            if isinstance(node, ast.Name)
        )
        and all(_called(node) for node in nodes if isinstance(node, ast.Call))
        and all(
            isinstance(node.value, ast.Constant) and isinstance(node.value.value, bool)
            for node in nodes
            if isinstance(node, ast.keyword)
        )
        and all(
            isinstance(node.value, bool | int | float)
            or (isinstance(node.value, str) and _SYMBOL.fullmatch(node.value) is not None)
            for node in nodes
            if isinstance(node, ast.Constant)
        )
        and len(powers) <= _POWERS
        and all(_is_small(exponent) for exponent in powers)
    )


def _called(call: ast.Call) -> str:
    return call.func.id if isinstance(call.func, ast.Name) else ""


def _is_small(exponent: ast.expr) -> bool:
    """Whether an exponent is a small number: `2`, `-1`, `Integer(2)`."""
    if isinstance(exponent, ast.Call) and _called(exponent) == "Integer" and exponent.args:
        exponent = exponent.args[0]
    if isinstance(exponent, ast.UnaryOp):
        exponent = exponent.operand
    value = exponent.value if isinstance(exponent, ast.Constant) else None
    return isinstance(value, int) and value <= _LARGEST_EXPONENT


def _check_containers(text: str, refuse: _Refuse) -> None:
    """Of nested results: torch imports the types that it is told of."""
    if not text:
        return
    try:
        waiting = [json.loads(text)[1]]
        while waiting:
            spec = waiting.pop()
            kind = spec["type"]
            if kind not in {*_CONTAINERS, _ORDERED}:
                raise refuse(f"it takes or returns a {str(kind)[:60]}")
            if kind in {"builtins.dict", _ORDERED} and not all(
                isinstance(key, str) for key in json.loads(spec["context"])
            ):
                raise refuse("it returns a dict with other keys than strings")
            waiting += spec["children_spec"]
    except (ValueError, LookupError, TypeError) as error:
        raise refuse(f"it returns {text[:60]!r}") from error
