"""Compute `codec/tables.json`, the frozen probability tables (FORMAT.md appendix A)."""

import json
import math
import sys
from pathlib import Path

CLASSES = 40
ONE = 26
"""Class whose levels have mean magnitude 1; two classes an octave."""
ALPHABET = 64
M = 31
ROUNDING = 0.25
TOTAL = 1 << 24
EXPECTED_LOW, EXPECTED_HIGH = -48, 60
MIXTURE = ((-2.0, 0.05), (-1.0, 0.2), (0.0, 0.4), (1.0, 0.25), (2.0, 0.1))


def tail(n: float, b: float) -> float:
    """P(|level| >= n) of a Laplacian of scale b steps, mixed over scales."""
    return sum(w * min(1.0, math.exp(-(n - ROUNDING) / (b * 2.0**o))) for o, w in MIXTURE)


def mean(b: float) -> float:
    total = 0.0
    for o, w in MIXTURE:
        s = b * 2.0**o
        total += w * math.exp(-(1 - ROUNDING) / s) / (1 - math.exp(-1 / s))
    return total


def solve(target: float) -> float:
    low, high = 1e-3, 1e4
    for _ in range(200):
        mid = math.sqrt(low * high)
        low, high = (mid, high) if mean(mid) < target else (low, mid)
    return math.sqrt(low * high)


def weights(k: int) -> list[int]:
    b = solve(2.0 ** ((k - ONE) / 2))
    tails = [tail(n, b) for n in range(1, M + 2)]
    p = [0.0] * ALPHABET
    p[M] = 1 - tails[0]
    for n in range(1, M + 1):
        p[M + n] = p[M - n] = (tails[n - 1] - tails[n]) / 2
    p[ALPHABET - 1] = tails[M]
    w = [math.floor(x * (TOTAL - ALPHABET)) for x in p]
    w[M] += TOTAL - ALPHABET - sum(w)
    return w


def main() -> None:
    thresholds = [round(65536 * 2.0 ** ((k + 0.5 - ONE) / 2)) for k in range(CLASSES - 1)]
    expected = []
    for i in range(EXPECTED_LOW, EXPECTED_HIGH + 1):
        b = 2.0 ** (i / 6) / math.sqrt(2)
        x = math.exp(-(1 - ROUNDING) / b) / (1 - math.exp(-1 / b)) if b > 1e-2 else 0
        expected.append(max(8, round(65536 * x)))
    out = {
        "levels": [weights(k) for k in range(CLASSES)],
        "thresholds": thresholds,
        "expected_low": EXPECTED_LOW,
        "expected": expected,
        "points": [[0, 0] for _ in range(CLASSES)],
    }
    Path(sys.argv[1]).write_text(json.dumps(out))


main()
