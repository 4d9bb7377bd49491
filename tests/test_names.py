"""What `import codec` offers: every name loads, a notebook can complete it, nothing is shadowed."""

from __future__ import annotations

import builtins
import re
from pathlib import Path

import pytest

import codec

STUB = Path(codec.__file__).with_suffix(".pyi")


def test_every_name_of_the_stub_loads():
    listed = re.findall(r"(\w+) as \1\b", STUB.read_text(encoding="utf-8"))
    assert len(listed) == len(set(listed)) > 40
    assert set(listed) <= set(dir(codec))
    for name in set(listed) - {"QUALITIES"}:
        assert getattr(codec, name).__module__.startswith("codec."), name
    assert codec.QUALITIES["high"] == codec.EncoderConfig().qp


def test_a_star_leaves_the_builtins_alone():
    names: dict[str, object] = {}
    exec("from codec import *", names)
    assert names["Encoder"] is codec.Encoder
    assert not set(codec.__all__) & set(dir(builtins))


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'codec' has no attribute 'encoed'"):
        codec.encoed  # noqa: B018
