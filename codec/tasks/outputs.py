"""The tensors in what a network returns, by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from torch import Tensor

from codec.errors import ModelError

__all__ = ["float_tensors", "named_tensors", "one_output"]


def named_tensors(outputs: object) -> dict[str, Tensor]:
    """Return all tensors in a tensor, or in dicts, lists and tuples of them, in their order.

    Names are keys and places joined by dots: `out`, `0`, `0.boxes`; a tensor alone is `output`.

    Raises:
        ModelError: there is none.
    """
    found = dict(_walk(outputs, ""))
    if not found:
        raise ModelError(f"the model's output, {type(outputs).__name__}, holds no tensor")
    return found


def float_tensors(outputs: object) -> dict[str, Tensor]:
    """Return those of `named_tensors` that hold floating-point numbers.

    Raises:
        ModelError: there is none.
    """
    found = {
        name: value for name, value in named_tensors(outputs).items() if value.is_floating_point()
    }
    if not found:
        raise ModelError(f"the model's output, {type(outputs).__name__}, holds no float tensor")
    return found


def one_output(outputs: object, chosen: int | str) -> Tensor:
    """Return one tensor of floating-point numbers by its place or by its name.

    Raises:
        ModelError: there is no such tensor, or it holds other numbers.
    """
    found = named_tensors(outputs)
    if isinstance(chosen, int) and chosen < len(found):
        chosen = list(found)[chosen]
    if isinstance(chosen, str) and chosen in found:
        if not found[chosen].is_floating_point():
            raise ModelError(
                f"output {chosen!r} holds {found[chosen].dtype} numbers; the task expects "
                "logits or probabilities, so name the output that holds them"
            )
        return found[chosen]
    names = ", ".join(f"{name} {tuple(value.shape)}" for name, value in found.items())
    raise ModelError(f"the task wants output {chosen!r}; the model gives {names}")


def _walk(value: object, name: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield name or "output", value
        return
    if isinstance(value, Mapping):
        parts = list(value.items())
    elif isinstance(value, Sequence) and not isinstance(value, str | bytes):
        parts = list(enumerate(value))
    else:
        return
    for key, part in parts:
        yield from _walk(part, f"{name}.{key}" if name else str(key))
