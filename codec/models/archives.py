"""A .pt2 archive made fit for torch to read: nothing in it may make torch run code.

`torch.export.load` is not made for files of strangers: it unpickles without `weights_only`, finds
members by names in any case, takes any attribute of `torch` for an operation, evaluates expressions
of sizes, imports what the structure of results names, and writes names into generated Python.
Hence torch is never given the file, but an archive written here.  What of the program torch would
read, by torch's own schema, is looked at value by value, and only what is known to be harmless
passes: tensors, operations of ATen, arithmetic of sizes, names of Python, and tuples, lists and
dicts of results.  Sample inputs, guards and notes of the exporter are left out.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import io
import json
import re
import types
import typing
import zipfile
from collections.abc import Callable
from typing import Any, Final

import torch

from codec.errors import ModelError
from codec.models.boundary import as_model_error, first_line

__all__ = ["harmless_archive"]

_PROGRAM: Final = "models/model.json"
_COPIED_MEMBERS: Final = ("archive_format", "archive_version")
_TENSORS: Final = re.compile(r"data/(weights/weight|constants/tensor)_\d+")
_CONFIGS: Final = (
    "data/weights/model_weights_config.json",
    "data/constants/model_constants_config.json",
)
_PICKLES: Final = ("data/weights/model.pt", "data/constants/model.pt")  # of torch 2.8
_SAMPLES: Final = "data/sample_inputs/model.pt"
_UNREAD_MEMBERS: Final = ("extra/", ".data/", "byteorder", "version")

# What torch would evaluate or only notes down: nothing that a program needs.
_LEFT_OUT: Final[dict[tuple[str, str], object]] = {
    ("ExportedProgram", "guards_code"): [],
    ("GraphModule", "metadata"): {},
    ("GraphModule", "treespec_namedtuple_fields"): {},
}
_REFUSED_KINDS: Final = ("CustomObjArgument", "GraphArgument", "TokenArgument")
_FLOATS: Final = ("Infinity", "-Infinity", "NaN")

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PATH: Final = re.compile(r"(?!(.*\.)?__\w*__(\.|$))[A-Za-z0-9_.+\-@]*", re.ASCII)
_VERSION: Final = re.compile(r"[A-Za-z0-9_.+\-<= ]*")
_FILE_NAME: Final = re.compile(r"(weight|tensor)_\d+", re.ASCII)
_DEVICE: Final = re.compile(r"[a-z]+")

_ATEN: Final = re.compile(
    r"torch\.ops\.(aten|prims)\.([a-zA-Z]\w*|_[a-z]\w*)\.([a-zA-Z]\w*)", re.ASCII
)
_OTHER_OPERATION: Final = re.compile(
    r"torch\.ops\.torchvision\.(nms|(ps_)?roi_(align|pool)|deform_conv2d)\.default|"
    r"torch\.sym_(float|int|ite|max|min|not|sum)|torch\._sym_sqrt|"
    r"_operator\.(getitem|add|sub|mul|floordiv|truediv|mod|neg|pos|eq|ne|lt|le|gt|ge|and_|or_|not_)|"
    r"math\.(ceil|floor|trunc|sqrt)"
)
# Operations of ATen for its own use trust their arguments, and could reach memory of others.
_PRIVATE_OPERATION: Final = re.compile(
    r"_(adaptive_avg_pool[23]d|assert_\w+|batch_norm_\w+|cdist_forward|conj|convolution\w*|"
    r"embedding_bag|euclidean_dist|fft_(c2c|c2r|r2c)|functional_assert_\w+|"
    r"linalg_(det|eigh|slogdet|solve_ex|svd)|local_scalar_dense|log_softmax|"
    r"native_batch_norm_legit\w*|neg_view|pdist_forward|reshape_alias|scaled_dot_product_\w+|"
    r"shape_as_tensor|softmax|stack|to_copy|trilinear|unique2?|unsafe_index|unsafe_index_put|"
    r"unsafe_masked_index|unsafe_view|upsample_\w+|weight_norm\w*)"
)
_UNSAFE_OPERATION: Final = re.compile(r"from_file|save|set_?|record_stream|resize\w*")

# Sizes: 2*s0 + Max(1, s1//4), or Mul(Integer(4), Symbol('s30', positive=True, integer=True)).
_SIZE_LENGTH: Final = 2000
_SYMBOL: Final = re.compile(r"(zu?f?|[suf])\d{1,4}", re.ASCII)
_FUNCTION: Final = re.compile(
    r"Max|Min|Mod|PythonMod|Abs|FloorDiv|CeilDiv|CleanDiv|ModularIndexing|Where|IntTrueDiv|"
    r"FloatTrueDiv|ToFloat|TruncToInt|CeilToInt|FloorToInt|RoundToInt|Eq|Ne|Lt|Le|Gt|Ge|And|Or|Not|"
    r"Integer|Rational|Float|Add|Mul"
)
_ASSUMPTION: Final = re.compile(
    r"positive|nonnegative|negative|integer|real|zero|nonzero|infinite|finite"
)
_FLOAT: Final = re.compile(r"[0-9.e+\-]{1,40}")
_ARITHMETIC: Final = (
    *(ast.BinOp, ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod),
    *(ast.BitAnd, ast.BitOr, ast.UnaryOp, ast.USub, ast.UAdd, ast.Invert, ast.Load),
    *(ast.Compare, ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE),
)
_MOST_POWERS: Final = 4
_LARGEST_POWER: Final = 4
_INTEGERS: Final = range(-(2**63), 2**63)

_SEQUENCES: Final = ("builtins.tuple", "builtins.list")
_DICTS: Final = ("builtins.dict", "collections.OrderedDict")


def harmless_archive(content: bytes, file: str) -> bytes:
    """Return the archive of `torch.export.save` again, with only what torch reads without risk.

    Args:
        content: of the file.
        file: its name, for messages.

    Raises:
        ModelError: it is none, or holds something that is not known to be harmless.
    """
    try:
        if not _is_stored(content):
            raise _NotHarmless("compressed members")  # noqa: TRY301 - told as what is no archive
        reader = torch._C.PyTorchFileReader(io.BytesIO(content))
        members = set(reader.get_all_records())
    except Exception as error:  # torch's reader, of any bytes
        raise ModelError(
            f"{file}: not an exported program ({first_line(error)}); "
            "torch.export.save(torch.export.export(model, (images,)), FILE) writes one"
        ) from error
    if _PROGRAM not in members:
        raise ModelError(
            f"{file}: an archive without {_PROGRAM}, as torch up to 2.7 writes it; export it anew "
            "with torch 2.8 or later"
        )
    if torch.__version__ < "2.8":  # compared as versions
        raise ModelError(
            f"{file}: programs are read by torch 2.8 or later, this is {torch.__version__}; "
            "pip install --upgrade torch"
        )
    with as_model_error(f"{file}: damaged", "; export it anew"):
        try:
            return _rewritten(reader, members)
        except _NotHarmless as found:
            raise ModelError(
                f"{file}: {found}, which is not known to be harmless; "
                "codec.load_model(FILE, trusted=True) reads it, for those who trust whoever made it"
            ) from found


def _is_stored(content: bytes) -> bool:
    """Return whether nothing is compressed, and so nothing larger than it looks."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return all(one.compress_type == zipfile.ZIP_STORED for one in archive.infolist())


class _NotHarmless(Exception):  # noqa: N818 - never leaves this file
    """What was found, in words."""


def _rewritten(reader: Any, members: set[str]) -> bytes:  # noqa: ANN401 - torch's
    known = {_PROGRAM, _SAMPLES, *_COPIED_MEMBERS, *_CONFIGS, *_PICKLES}
    for member in sorted(members):
        if not (
            member in known or _TENSORS.fullmatch(member) or member.startswith(_UNREAD_MEMBERS)
        ):
            raise _NotHarmless(f"it holds {member!r}")
    written = io.BytesIO()
    writer = torch._C.PyTorchFileWriter(written)

    def write(member: str, record: bytes) -> None:
        writer.write_record(member, record, len(record))

    from torch._export.serde import schema  # noqa: PLC0415 - takes a second

    for member in sorted(members):
        if member in _COPIED_MEMBERS or _TENSORS.fullmatch(member):
            write(member, reader.get_record(member))
        elif member in _PICKLES:
            write(member, _only_tensors(reader.get_record(member), member))
        elif member == _PROGRAM or member in _CONFIGS:
            kind = schema.ExportedProgram if member == _PROGRAM else schema.PayloadConfig
            value = json.loads(reader.get_record(member).decode())
            write(member, json.dumps(_checked(kind, value, ("", ""))).encode())
    write(_SAMPLES, b"")
    writer.write_end_of_file()
    return written.getvalue()


def _only_tensors(record: bytes, member: str) -> bytes:
    try:
        if zipfile.is_zipfile(io.BytesIO(record)) and not _is_stored(record):
            raise _NotHarmless("compressed members")  # noqa: TRY301 - told as whatever is wrong
        tensors = torch.load(io.BytesIO(record), weights_only=True, map_location="cpu")
    except Exception as error:  # whatever the unpickler refuses, or trips over
        raise _NotHarmless(f"{member!r} holds more than tensors") from error
    written = io.BytesIO()
    torch.save(tensors, written)
    return written.getvalue()


@functools.cache
def _fields(kind: Any) -> dict[str, Any]:  # noqa: ANN401 - a class of torch's schema
    return typing.get_type_hints(kind)


def _checked(kind: Any, value: Any, place: tuple[str, str]) -> Any:  # noqa: ANN401 - JSON
    """Return a value of JSON with what torch's schema knows of it, all of which is harmless.

    Args:
        kind: what torch will take it for, a class of its schema or a type of Python.
        value: the value.
        place: the class that it is a field of, and the field.
    """
    if typing.get_origin(kind) in {typing.Union, types.UnionType}:
        if value is None:
            return None
        (kind,) = (one for one in typing.get_args(kind) if one is not types.NoneType)
    if dataclasses.is_dataclass(kind):
        return _checked_fields(kind, value)
    origin = typing.get_origin(kind)
    if origin is list and isinstance(value, list):
        return [_checked(typing.get_args(kind)[0], one, place) for one in value]
    if origin is dict and isinstance(value, dict):
        if place == ("Node", "metadata"):  # the rest are notes, for us to see
            value = {key: value[key] for key in value if key == "nn_module_stack"}
        of_keys = _TEXTS.get((place[0], f"{place[1]}, a key"), _name)
        for key in value:
            of_keys(key, place)
        if place == ("ExportedProgram", "range_constraints"):
            # that of 32*s0 follows from that of s0, and torch may take either for a symbol's
            value = {key: one for key, one in value.items() if _SYMBOL.fullmatch(key)}
        return {key: _checked(typing.get_args(kind)[1], one, place) for key, one in value.items()}
    if kind is str:
        fits = isinstance(value, str)
    elif kind is bool:
        fits = isinstance(value, bool)
    elif kind is float:
        fits = type(value) in {int, float} or value in _FLOATS
    else:
        fits = isinstance(kind, type) and issubclass(kind, int)  # enumerations, too
        fits = fits and type(value) is int and value in _INTEGERS
    if not fits:
        raise _NotHarmless(f"it says {str(value)[:60]!r} for {'.'.join(place)}")
    if kind is str:
        _TEXTS.get(place, _name)(value, place)
    return value


def _checked_fields(kind: Any, value: Any) -> dict[str, Any]:  # noqa: ANN401 - as above
    name, fields = kind.__name__, _fields(kind)
    if name in _REFUSED_KINDS:
        raise _NotHarmless(f"it holds a {name}")
    if not isinstance(value, dict) or (hasattr(kind, "create") and len(value) != 1):
        raise _NotHarmless(f"it says {str(value)[:60]!r} for a {name}")
    if hasattr(kind, "create") and not value.keys() <= fields.keys():
        raise _NotHarmless(f"it holds a {name} {next(iter(value))[:60]!r}")
    if value.get("use_pickle"):
        raise _NotHarmless(f"{str(value.get('path_name'))[:60]!r} holds more than tensors")
    return {
        field: _LEFT_OUT[name, field]
        if (name, field) in _LEFT_OUT
        else _checked(of, value[field], (name, field))
        for field, of in fields.items()
        if field in value
    }


# --- texts ---


def _says(pattern: re.Pattern[str]) -> Callable[[str, tuple[str, str]], None]:
    def check(text: str, place: tuple[str, str]) -> None:
        if not pattern.fullmatch(text):
            raise _NotHarmless(f"it says {text[:60]!r} for {'.'.join(place)}")

    return check


def _shown(text: str, place: tuple[str, str]) -> None:
    """Of what torch writes into Python as a literal, or nowhere."""
    if not text.isprintable():
        raise _NotHarmless(f"it says {text[:60]!r} for {'.'.join(place)}")


def _name_or_nothing(text: str, place: tuple[str, str]) -> None:
    if text:
        _name(text, place)


def _check_operation(text: str, _: object) -> None:
    if _OTHER_OPERATION.fullmatch(text):
        return
    found = _ATEN.fullmatch(text)
    if found is None:
        raise _NotHarmless(f"it calls {text[:60]!r}")
    namespace, name, overload = found.groups()
    if _UNSAFE_OPERATION.fullmatch(name) or (
        name.startswith("_") and not _PRIVATE_OPERATION.fullmatch(name)
    ):
        raise _NotHarmless(f"it calls {text[:60]!r}")
    operation = getattr(getattr(getattr(torch.ops, namespace), name, None), overload, None)
    if (
        not isinstance(operation, torch._ops.OpOverload)
        or not torch._C._dispatch_has_kernel(operation._name)  # of TorchScript only
        or any(argument.name == "filename" for argument in operation._schema.arguments)
    ):
        raise _NotHarmless(f"it calls {text[:60]!r}")


def _check_size(text: str, _: object) -> None:
    """Of a size, which torch evaluates as Python: arithmetic of symbols and small numbers."""
    if not (
        text.isascii() and text.isprintable() and len(text) <= _SIZE_LENGTH and _is_arithmetic(text)
    ):
        raise _NotHarmless(f"it has the size {text[:60]!r}")


def _is_arithmetic(text: str) -> bool:
    try:
        waiting: list[ast.AST] = [ast.parse(text, mode="eval").body]
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return False
    powers = 0
    while waiting:
        node = waiting.pop()
        if not _fits(node):
            return False
        match node:
            case ast.BinOp(left=base, op=ast.Pow()):
                powers += 1
                waiting.append(base)
            case ast.Call(func=ast.Name(id="Symbol" | "Float")):
                pass
            case ast.Call(func=ast.Name(id=name), args=args):
                powers += name == "Pow"
                waiting += args
            case _:
                waiting += ast.iter_child_nodes(node)
    return powers <= _MOST_POWERS


def _fits(node: ast.AST) -> bool:
    """Return whether a node is one of arithmetic, whatever it is applied to."""
    fits = isinstance(node, _ARITHMETIC)
    match node:
        case ast.Constant(value=number):
            fits = type(number) in {bool, float} or (type(number) is int and number in _INTEGERS)
        case ast.Name(id=name):
            fits = bool(_SYMBOL.fullmatch(name))
        case ast.Call(func=ast.Name(id="Symbol"), args=[ast.Constant(value=str(name))]):
            fits = bool(_SYMBOL.fullmatch(name)) and _are_assumptions(node.keywords)
        case ast.Call(func=ast.Name(id="Float"), args=[ast.Constant(value=str(number))]):
            fits = bool(_FLOAT.fullmatch(number)) and _are_precision(node.keywords)
        case ast.Call(func=ast.Name(id="Pow"), args=[_, exponent], keywords=[]):
            fits = _is_small(exponent)
        case ast.Call(func=ast.Name(id=name), keywords=[]):
            fits = bool(_FUNCTION.fullmatch(name))
        case ast.BinOp(op=ast.Pow(), right=exponent):
            fits = _is_small(exponent)
    return fits


def _are_assumptions(keywords: list[ast.keyword]) -> bool:
    return all(
        _ASSUMPTION.fullmatch(one.arg or "")
        and isinstance(one.value, ast.Constant)
        and isinstance(one.value.value, bool)
        for one in keywords
    )


def _are_precision(keywords: list[ast.keyword]) -> bool:
    return all(
        one.arg in {"precision", "dps"}
        and isinstance(one.value, ast.Constant)
        and one.value.value in range(1, 200)
        for one in keywords
    )


def _is_small(exponent: ast.AST) -> bool:
    if isinstance(exponent, ast.Call) and ast.unparse(exponent.func) == "Integer":
        (exponent,) = exponent.args or [ast.Constant(value=None)]
    if isinstance(exponent, ast.UnaryOp) and isinstance(exponent.op, ast.USub):
        exponent = exponent.operand
    return (
        isinstance(exponent, ast.Constant)
        and type(exponent.value) is int
        and exponent.value in range(_LARGEST_POWER + 1)
    )


def _check_arguments(text: str, _: object) -> None:
    _check_containers(text, _name)  # keys of these are written into Python


def _check_results(text: str, _: object) -> None:
    _check_containers(text, _shown)


def _check_containers(text: str, of_key: Callable[[str, tuple[str, str]], None]) -> None:
    """Of nested results: torch imports what it is told of."""
    if not text:
        return
    try:
        protocol, first = json.loads(text)
        if protocol != 1:
            raise _NotHarmless(f"it returns results of protocol {str(protocol)[:20]!r}")
        waiting = [first]
        while waiting:
            spec = waiting.pop()
            kind, context = spec["type"], spec["context"]
            if kind in _DICTS:
                keys = json.loads(context)
                if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
                    raise _NotHarmless("it returns a dict with other keys than strings")
                for key in keys:
                    of_key(key, ("a dict", "key"))
            elif kind in _SEQUENCES:
                if json.loads(context) is not None:
                    raise _NotHarmless(f"it returns a {kind} of {str(context)[:60]!r}")
            elif kind is not None or context is not None:
                raise _NotHarmless(f"it takes or returns a {str(kind)[:60]}")
            waiting += spec["children_spec"]
    except (ValueError, LookupError, TypeError) as error:
        raise _NotHarmless(f"it returns {text[:60]!r}") from error


_name: Final = _says(_NAME)
_path: Final = _says(_PATH)
# All that is not here is the name of a value.
_TEXTS: Final[dict[tuple[str, str], Callable[[str, tuple[str, str]], None]]] = {
    ("Node", "target"): _check_operation,
    ("Node", "name"): _name_or_nothing,
    ("Node", "metadata"): _shown,
    ("NamedArgument", "name"): _name_or_nothing,
    ("InputToConstantInputSpec", "name"): _name_or_nothing,
    ("Argument", "as_string"): _shown,
    ("Argument", "as_strings"): _shown,
    ("ConstantValue", "as_string"): _shown,
    ("SymExpr", "expr_str"): _check_size,
    ("ExportedProgram", "range_constraints, a key"): _check_size,
    ("ExportedProgram", "torch_version"): _says(_VERSION),
    ("ModuleCallSignature", "in_spec"): _check_arguments,
    ("ModuleCallSignature", "out_spec"): _check_results,
    ("ModuleCallEntry", "fqn"): _path,
    ("Device", "type"): _says(_DEVICE),
    ("InputToParameterSpec", "parameter_name"): _path,
    ("InputToBufferSpec", "buffer_name"): _path,
    ("InputToTensorConstantSpec", "tensor_constant_name"): _path,
    ("BufferMutationSpec", "buffer_name"): _path,
    ("ParameterMutationSpec", "parameter_name"): _path,
    ("GradientToParameterSpec", "parameter_name"): _path,
    ("PayloadConfig", "config, a key"): _path,
    ("PayloadMeta", "path_name"): _says(_FILE_NAME),
}
