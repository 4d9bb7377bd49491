"""Large tensors a part at a time, so that temporary copies stay small.  Without torch."""

__all__ = ["STRIPE", "stripes"]

STRIPE = 1 << 20
"""Elements that are computed at a time: temporary copies in float64 take a few times 8 MiB, however
large a tensor is."""


def stripes(count: int, elements: int) -> list[tuple[int, int]]:
    """Divide `count` rows, `elements` altogether, into half-open ranges of about `STRIPE` elements,
    at least one row each.
    """
    rows = max(count * STRIPE // max(elements, 1), 1)
    return [(first, min(first + rows, count)) for first in range(0, count, rows)]
