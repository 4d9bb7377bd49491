"""The check of a .pt2 archive before torch reads it: nothing in it may make torch run code.

`torch.export.load` is not made for files of strangers: it unpickles without `weights_only` where a
member says so, takes any attribute of `torch` for an operation, evaluates expressions of sizes, and
writes names into generated Python.  Hence the members and the program are looked at first, as the
bytes that torch will read, and only what can be seen to be harmless passes: tensors, operations of
ATen, arithmetic of sizes, plain names, and tuples, lists and dicts of results.
"""

from __future__ import annotations

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
_SYMBOL: Final = re.compile(r"Symbol\('((?:zu?f?|[suf])\d+)'")
_SIZE: Final = re.compile(r"[\w\s+\-*/%(),<>=!&|~]*")
_SIZE_NAME: Final = re.compile(
    r"(zu?f?|[suf])\d+|Max|Min|Mod|PythonMod|Abs|FloorDiv|CeilDiv|CleanDiv|ModularIndexing|Where|"
    r"IntTrueDiv|FloatTrueDiv|ToFloat|TruncToInt|CeilToInt|FloorToInt|RoundToInt|Eq|Ne|Lt|Le|Gt|Ge|"
    r"And|Or|Not|True|False|Symbol|Integer|Rational|Float|Add|Mul|Pow|"
    r"positive|nonnegative|negative|integer|real|zero|nonzero|infinite|finite"
)
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
        listed = zipfile.ZipFile(io.BytesIO(content)).namelist()
    except Exception as error:  # torch's reader, of any bytes
        raise ModelError(
            f"{file}: not an exported program ({first_line(error)}); "
            "torch.export.save(torch.export.export(model, (images,)), FILE) writes one"
        ) from error
    if _PROGRAM not in members or "version" in listed:  # that of torch 2.7, which is unpickled
        raise ModelError(
            f"{file}: an archive without {_PROGRAM}; export it anew with torch 2.8 or later"
        )

    def refuse(what: str) -> ModelError:
        return ModelError(
            f"{file}: {what}, which is not known to be harmless; "
            "codec.load_model(FILE, trusted=True) reads it, for those who trust whoever made it"
        )

    for member in sorted(members):
        if member == _PROGRAM or member.startswith(_OTHER_MEMBERS):
            continue
        if not member.startswith(_UNPICKLED_MEMBERS):
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
            if payload.get("use_pickle") and pickled in members:
                _check_pickle(reader.get_record(pickled), pickled, refuse)
        for key, text in _texts(config):
            if not _PLAIN.fullmatch(text):
                raise refuse(f"{member} says {text[:40]!r} for {key}")
    for key, text in _texts(_parsed(reader.get_record(_PROGRAM), file)):
        _check_text(key, text, refuse)


def _check_pickle(record: bytes, member: str, refuse: _Refuse) -> None:
    """Read a pickle as far as that is safe: what passes gives torch the same without this care."""
    try:
        torch.load(io.BytesIO(record), weights_only=True, map_location="cpu")
    except Exception as error:  # whatever the unpickler refuses, or trips over
        raise refuse(f"{member!r} holds more than tensors") from error


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
            if name not in {"metadata", "guards_code"}:  # never read, for us to see, or by torch
                yield from _texts(item, name)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item, key)
    elif isinstance(value, str):
        yield key, value


def _check_text(key: str, text: str, refuse: _Refuse) -> None:
    if key == "target":
        if text.startswith(_FILE_OPERATIONS) or not _OPERATION.fullmatch(text):
            raise refuse(f"it calls {text[:60]!r}")
    elif key == "expr_str":
        plain = _SYMBOL.sub(r"Symbol(\1", text)
        names = re.findall(r"[A-Za-z_]\w*", plain)
        if not _SIZE.fullmatch(plain) or not all(map(_SIZE_NAME.fullmatch, names)):
            raise refuse(f"it has the size {text[:60]!r}")
    elif key in {"in_spec", "out_spec"}:
        _check_containers(text, refuse)
    elif not _PLAIN.fullmatch(text):
        raise refuse(f"it says {text[:60]!r} for {key}")


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
