"""TOML read strictly: what is known, there and of its type is given, everything else refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codec.descriptions import Fields, read_toml
from codec.errors import ModelError, TaskError

VALUES = st.one_of(
    st.integers(),
    st.floats(),
    st.booleans(),
    st.text(max_size=80),
    st.lists(st.one_of(st.integers(-9, 300), st.floats(), st.booleans()), max_size=4),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)


def fields(**values: object) -> Fields:
    return Fields("x.toml", values, TaskError)


ASKED = {
    "choice": lambda given: given.choice("key", ["a", "b"]),
    "number": lambda given: given.number("key", low=0, high=1),
    "numbers": lambda given: given.numbers("key", 2, low=0, high=255),
    "count": lambda given: given.count("key", high=9),
    "counts": lambda given: given.counts("key", 2, low=1, high=255),
}


@given(st.sampled_from(sorted(ASKED)), VALUES)
def test_a_value_is_given_as_it_is_or_refused_in_one_line(name, value):
    asked = fields(key=value)
    try:
        found = ASKED[name](asked)
    except TaskError as error:
        text = str(error)
        assert text.startswith("x.toml: key is ")
        assert "; expected " in text
        assert "\n" not in text
    else:
        assert found == value
        assert not isinstance(value, bool)
        asked.end()


@pytest.mark.parametrize("name", sorted(ASKED))
def test_what_is_missing_or_unknown_is_named(name):
    with pytest.raises(TaskError, match=r"x\.toml: key 'key' is missing; expected "):
        ASKED[name](fields())
    given = fields(key="a", other=1)
    given.choice("key", ["a"])
    with pytest.raises(TaskError, match="unknown key 'other'; expected only key"):
        given.end()
    assert fields().count("key", 7) == 7
    assert fields().numbers("key", 2, (1, 2), low=0, high=9) == [1, 2]


def test_files(tmp_path):
    path = tmp_path / "a.toml"
    path.write_text("a = 1\n[b]\nc = [1, 2]\n")
    assert read_toml(path, ModelError) == {"a": 1, "b": {"c": [1, 2]}}
    path.write_text("a = " + "[" * 100_000)
    with pytest.raises(ModelError, match="is no TOML"):
        read_toml(path, ModelError)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(TaskError, match="is no TOML"):
        read_toml(path, TaskError)
    with pytest.raises(TaskError, match="no such file or directory"):
        read_toml(tmp_path / "b.toml", TaskError)
