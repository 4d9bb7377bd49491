"""Compute `codec/format/tables.json`, the frozen probability tables (FORMAT.md appendix A).

    python -m tools.make.tables OUTPUT

Levels of one scale class are modelled as zero with probability 1 - N(m), otherwise of geometric
magnitude and random sign, m being the mean magnitude; a small share has a tail four times as long.
Which means occur in a class (adaptation lags, so quiet classes are less quiet than they think) and
N were measured on real clips at two splits and three quantisers; the control points below are those
measurements, smoothed.  Changing anything here changes the format.
"""

import json
import math
import sys
from bisect import bisect

from codec.files.outputs import one_line, open_output
from codec.format.constants import CLASSES
from codec.format.tables import ESCAPE, MAX_DIRECT_LEVEL, MEAN_BITS, PROBABILITY_BITS

UNIT_CLASS = 26
"""Class of nominal mean magnitude 1; two classes an octave."""
ALPHABET = ESCAPE + 1
TOTAL = 1 << PROBABILITY_BITS
MEAN_ONE = 1 << MEAN_BITS
TAIL_SHARE, TAIL_SCALE = 0.02, 4.0

# fmt: off
CLASS_MEANS = {
    0: 0.0011, 5: 0.0072, 10: 0.0205, 13: 0.0285, 15: 0.040, 16: 0.048, 17: 0.061, 18: 0.079,
    19: 0.102, 20: 0.135, 21: 0.181, 22: 0.246, 23: 0.336, 24: 0.455, 25: 0.633, 26: 0.908,
    27: 1.31, 28: 1.88, 29: 2.60, 30: 3.65, 31: 5.2, 32: 7.3, 33: 10.3, 34: 14.6, 39: 82.6,
}
"""Class -> mean magnitude found."""
NONZERO = {
    1e-4: 1e-4, 0.04: 0.0394, 0.079: 0.0772, 0.135: 0.130, 0.181: 0.1745, 0.246: 0.232,
    0.336: 0.303, 0.455: 0.386, 0.633: 0.485, 0.908: 0.593, 1.31: 0.694, 1.88: 0.772,
    2.60: 0.832, 3.65: 0.880, 5.2: 0.922, 7.3: 0.952, 10.3: 0.969, 14.6: 0.980, 100.0: 0.997,
}
"""Mean magnitude -> share of non-zero levels found."""
# fmt: on

EXPECTED_LOW, EXPECTED_HIGH = -48, 60
DEAD_ZONE = 0.75
"""Magnitude from which a coefficient of the initial state is taken to become a level, in steps."""
LEAST_MEAN = 8


def interpolate(points: dict[float, float], x: float) -> float:
    """Interpolate linearly between control points in log y."""
    xs = sorted(points)
    i = min(max(bisect(xs, x), 1), len(xs) - 1)
    x0, x1 = xs[i - 1], xs[i]
    t = (x - x0) / (x1 - x0)
    return math.exp((1 - t) * math.log(points[x0]) + t * math.log(points[x1]))


def level_weights(number: int) -> list[int]:
    """Return the 64 integer weights of class `number`: levels -31 … 31, then the escape."""
    mean = interpolate({float(k): v for k, v in CLASS_MEANS.items()}, float(number))
    logs = {math.log(k): v for k, v in NONZERO.items()}
    nonzero = interpolate(logs, math.log(mean))
    ratio = max(1 - nonzero / mean, 1e-3)
    probability = [0.0] * ALPHABET
    probability[MAX_DIRECT_LEVEL] = 1 - nonzero
    # P(magnitude > n | non-zero); the slower tail decays with the TAIL_SCALE-th root of the ratio
    slow = ratio ** (1 / TAIL_SCALE)
    tails = [
        (1 - TAIL_SHARE) * ratio**n + TAIL_SHARE * slow**n for n in range(MAX_DIRECT_LEVEL + 1)
    ]
    for n in range(1, MAX_DIRECT_LEVEL + 1):
        share = nonzero * (tails[n - 1] - tails[n]) / 2
        probability[MAX_DIRECT_LEVEL + n] = probability[MAX_DIRECT_LEVEL - n] = share
    probability[-1] = nonzero * tails[MAX_DIRECT_LEVEL]
    weights = [math.floor(p * (TOTAL - ALPHABET)) for p in probability]
    weights[MAX_DIRECT_LEVEL] += TOTAL - ALPHABET - sum(weights)
    return weights


def expected_mean(scale: int) -> int:
    """Return the mean magnitude, times 2^16, of levels of a Laplacian of standard deviation
    2^(scale / 6) steps.
    """
    b = 2.0 ** (scale / 6) / math.sqrt(2)
    return max(LEAST_MEAN, round(MEAN_ONE * math.exp(-DEAD_ZONE / b) / (1 - math.exp(-1 / b))))


def tables() -> dict[str, object]:
    """Return the content of `codec/format/tables.json`."""
    return {
        "levels": [level_weights(number) for number in range(CLASSES)],
        "thresholds": [
            round(MEAN_ONE * 2.0 ** ((k + 0.5 - UNIT_CLASS) / 2)) for k in range(CLASSES - 1)
        ],
        "expected_low": EXPECTED_LOW,
        "expected": [expected_mean(scale) for scale in range(EXPECTED_LOW, EXPECTED_HIGH + 1)],
    }


def main() -> None:
    """Write the tables as JSON, a row a line."""
    if len(sys.argv) != 2:
        sys.exit("usage: python -m tools.make.tables FILE")
    rows = [f'"{key}": {json.dumps(value)}' for key, value in tables().items()]
    text = "{\n" + ",\n".join(rows).replace("], [", "],\n[") + "\n}\n"
    try:
        with open_output(sys.argv[1], force=True) as file:
            file.write(text.encode())
    except OSError as error:
        sys.exit(one_line(error))


if __name__ == "__main__":
    main()
