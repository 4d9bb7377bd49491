"""Files of weights -> a network that holds them; and the hash by which a stream names weights.

A file is a state dict, names to tensors, read without executing code from it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Final, cast

import torch
from safetensors.torch import load_file
from torch import nn

from codec.errors import ModelError
from codec.format.constants import HASH_BYTES
from codec.models.boundary import dtype_name, first_line, printable
from codec.models.tracing import unwrapped_name

__all__ = ["WEIGHT_FILES", "load_weights", "read_state_dict", "weights_hash", "weights_in_header"]

WEIGHT_FILES: Final = (".safetensors", ".pth", ".pt")
_WEIGHT_TYPES: Final = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def read_state_dict(path: Path) -> dict[str, torch.Tensor]:
    """Read a state dict.

    Raises:
        ModelError: there is no such file, or something else in it.
    """
    if path.suffix not in WEIGHT_FILES:
        raise ModelError(
            f"weights {str(path)!r}: expected default, random:SEED or "
            "a .safetensors, .pth or .pt file"
        )
    if not path.is_file():
        raise ModelError(f"weights {str(path)!r}: there is no such file")
    try:
        if path.suffix == ".safetensors":
            found: object = load_file(path)
        else:
            found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file fails anywhere inside the two libraries, in any way
        raise ModelError(
            f"{path}: cannot be read as a state dict: {first_line(error)}; "
            "torch.save(model.state_dict(), FILE) writes one"
        ) from error
    if not _is_state_dict(found):
        inside = found.items() if isinstance(found, dict) else ()
        nested = next(
            (key for key, value in inside if isinstance(value, dict) and _is_state_dict(value)),
            None,
        )
        raise ModelError(
            f"{path}: not a state dict, which maps names to tensors; "
            + (
                f"a checkpoint with one under {nested!r}: save that on its own"
                if nested is not None
                else f"found a {type(found).__name__}"
            )
        )
    return cast("dict[str, torch.Tensor]", found)


def _is_state_dict(value: object) -> bool:
    return isinstance(value, dict) and all(
        isinstance(key, str) and isinstance(tensor, torch.Tensor) for key, tensor in value.items()
    )


def load_weights(
    model: nn.Module,
    found: Mapping[str, torch.Tensor],
    name: str,
    path: Path,
    *,
    finite: bool = True,
) -> None:
    """Give a network the weights of a file, in its own types.

    Args:
        model: what takes them.
        found: the state dict.
        name: of the network, for the messages.
        path: of the file, likewise.
        finite: whether all of them must be.

    Raises:
        ModelError: they are those of another network, or none that it can run with.
    """
    expected = model.state_dict()
    # `num_batches_tracked` matters to training only, and older files lack it.
    tracked = {key: own for key, own in expected.items() if key.endswith("num_batches_tracked")}
    found = {**tracked, **_as_unwrapped(found, expected)}
    _check_keys(expected, found, name, path)
    for key, own in expected.items():
        _check_entry(key, own, found[key], name, path, finite=finite)
    model.load_state_dict(
        {key: found[key].to(own.dtype) for key, own in expected.items()}, strict=True
    )


def _as_unwrapped(
    found: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]
) -> Mapping[str, torch.Tensor]:
    """Give weights their names without the `module.` of DataParallel or the `_orig_mod.` of
    torch.compile, if these are what the network calls them.
    """
    plain = {unwrapped_name(key): tensor for key, tensor in found.items()}
    fits = len(plain) == len(found) and not any(key in expected for key in found)
    return plain if fits else found


def _check_keys(
    expected: Mapping[str, torch.Tensor], found: Mapping[str, torch.Tensor], name: str, path: Path
) -> None:
    missing = [key for key in expected if key not in found]
    unexpected = [key for key in found if key not in expected]
    if missing or unexpected:
        parts = [
            f"{len(keys)} {word} ({', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''})"
            for keys, word in ((missing, "missing"), (unexpected, "unexpected"))
            if keys
        ]
        raise ModelError(f"{path}: not the weights of {name}: {' and '.join(parts)}")


def _check_entry(
    key: str, own: torch.Tensor, found: torch.Tensor, name: str, path: Path, *, finite: bool
) -> None:
    if found.shape != own.shape:
        raise ModelError(
            f"{path}: not the weights of {name}: {key} has shape {tuple(found.shape)}, "
            f"not {tuple(own.shape)}"
        )
    if own.is_floating_point() and found.dtype not in _WEIGHT_TYPES:
        raise ModelError(
            f"{path}: {key} is {dtype_name(found)}, expected float32, float64, float16 or "
            "bfloat16; dequantize the weights first"
        )
    if found.is_meta or found.layout != torch.strided:
        raise ModelError(
            f"{path}: {key} is {'without values' if found.is_meta else 'sparse'}, "
            "expected a dense tensor; save the weights of a model that holds them"
        )
    if finite and not bool(found.isfinite().all()):
        raise ModelError(
            f"{path}: {key} holds NaN or infinity; the training that wrote it has diverged, or "
            "the file is damaged"
        )


def weights_hash(model: nn.Module) -> bytes:
    """Return the first eight bytes of the SHA-256 over the state dict.

    Entries in the order of their names; each as name, dtype (`float32`) and shape (`64,3,7,7`),
    all three ended by a zero byte, then the elements in row-major order, little-endian.

    Raises:
        ModelError: an entry has a type that NumPy lacks.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        try:
            elements = tensor.detach().cpu().contiguous().numpy()
        except (RuntimeError, TypeError, NotImplementedError) as error:  # bfloat16, meta ...
            raise ModelError(
                f"{name} is {dtype_name(tensor)} on {tensor.device}, which has no hash; "
                "use the float32 model"
            ) from error
        shape = ",".join(map(str, elements.shape))
        digest.update(f"{name}\0{elements.dtype.name}\0{shape}\0".encode())
        digest.update(elements.astype(elements.dtype.newbyteorder("<"), copy=False).tobytes())
    return digest.digest()[:HASH_BYTES]


def weights_in_header(weights: str) -> str:
    """Return how a header names weights: of a file its name alone, which is a hint, since the hash
    decides; a stream has no business with the folders of its writer.
    """
    if weights == "default" or weights.startswith("random:"):
        return weights
    return printable(Path(weights).name)
