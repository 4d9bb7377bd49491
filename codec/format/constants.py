"""The numbers of the format: widths, tags, flags, legal values; FORMAT.md 4 and 8."""

from __future__ import annotations

import re
from typing import Final

# compatibility
MAGIC: Final = b"\xabLMC\r\n\x1a\n"
"""A non-ASCII byte and two line endings: transfers that damage binary files damage this first (as
PNG's does)."""
FORMAT_VERSION: Final = 6

TENSOR_NAME: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*")
RESERVED_NAME: Final = "pts"
"""Tensors are stored under their names in files, beside one called that."""

# widths, in bytes
CRC_BYTES: Final = 4
CHECK_BYTES: Final = 2
HASH_BYTES: Final = 8
TRAILER_BYTES: Final = 4
MAX_VARINT_BYTES: Final = 9

# packet tags: type in the high nibble, flags in the low one
TYPE_MASK: Final = 0xF0
TYPE_INTER: Final = 0x10
TYPE_KEY: Final = 0x20
TYPE_END: Final = 0x30
TYPE_REPEAT: Final = 0x40
FLAG_VECTORS: Final = 0x01
FLAG_QP: Final = 0x02
FLAG_PTS: Final = 0x04
FLAG_OFFSETS: Final = 0x08

# sequence header flags
FLAG_PROFILE_EMBEDDED: Final = 0x01
FLAG_PREPROCESSING: Final = 0x02
FLAG_TASK: Final = 0x04
FLAG_REFERENCES: Final = 0x08

# legal values
MAX_QP: Final = 51
OFFSET_UNIT: Final = 2
"""Offsets of blocks are counted in these, qp."""
MAX_OFFSET: Final = 12
"""Largest magnitude of an offset: 24 qp, a factor of 16 in step."""
MAX_LEVEL: Final = (1 << 15) - 1
"""Largest magnitude of a level."""
MAX_VECTOR: Final = (1 << 13) - 1
"""Largest magnitude of a motion vector component in quarter pixels: just under 2048 pixels."""
VECTOR_UNITS: Final = 4
"""Vectors are in quarter pixels of the input frame."""
POINT_BITS: Final = 6
POINT_UNITS: Final = 1 << POINT_BITS
"""Reconstruction points are stored in 1/64 of a step."""
LATENT_LIMIT: Final = (1 << 23) - 1
"""Largest magnitude of a latent, and of a mean: exact in float32 too, so that features are exact
multiples of 2^-fraction_bits."""
MAX_REFERENCES: Final = 16
"""Most frames that are kept to predict from: a slot is named in four bits."""
SLOT_BITS: Final = 4
CLASSES: Final = 40
"""Scale classes of levels: probability tables, and pairs of reconstruction points."""
MIN_GRID: Final = 4
MAX_GRID: Final = 1024
DEFAULT_GRID: Final = 32
"""Pixels between vectors where nobody says otherwise."""
MAX_OFFSET2: Final = 1 << 16
MAX_EXTENT: Final = 1 << 16
"""Largest height, width or stride of a tensor, and side of the input."""
MAX_CHANNELS: Final = 1 << 13
"""The bounds of the exact arithmetic hold up to here, whatever `Limits` say."""
MAX_PTS: Final = 1 << 62
MAX_FILE_BYTES: Final = 1 << 62
MAX_NAME_BYTES: Final = 255
MAX_TASK_BYTES: Final = 1 << 16
