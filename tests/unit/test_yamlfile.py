from __future__ import annotations

import contextlib
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobspec.errors import SpecError
from jobspec.grammar.yamlfile import MAX_DEPTH, read_yaml, resolve_scalar, to_plain


def read(text: str | bytes) -> Any:
    return to_plain(read_yaml(text if isinstance(text, bytes) else text.encode(), "s.yaml").root)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("on", "on"),
        ("1e-3", 0.001),
        ("12:30", "12:30"),
        ("1_000", "1_000"),
        ("010", 10),
        ("0o10", 8),
        ("0x1F", 31),
        ("+1", 1),
        ("-.5", -0.5),
        ("1.", 1.0),
        (".inf", math.inf),
        ("-.Inf", -math.inf),
        ("nan", "nan"),
        ("inf", "inf"),
        ("~", None),
        ("", None),
        ("NULL", None),
        ("True", True),
        ("2001-01-01", "2001-01-01"),
        ("=", "="),
    ],
)
def test_scalars_have_yaml_1_2_types(text: str, value: Any) -> None:
    assert resolve_scalar(text) == value
    assert type(resolve_scalar(text)) is type(value)


def test_nan_is_a_float() -> None:
    assert math.isnan(resolve_scalar(".nan"))  # type: ignore[arg-type]


def test_quoted_scalars_are_texts() -> None:
    assert read("a: '1'\nb: \"true\"\nc: |\n  1\n") == {"a": "1", "b": "true", "c": "1\n"}


def test_bom_and_windows_lines_are_read() -> None:
    assert read(b"\xef\xbb\xbfa: 1\r\nb: [x, y]\r\n") == {"a": 1, "b": ["x", "y"]}


def test_locations_name_values_keys_and_nearest_ancestors() -> None:
    located = read_yaml(b"a:\n  - b: 1\n    c:\n", "s.yaml")
    assert located.of(("a", 0, "b")) == "s.yaml:2:8"
    assert located.of_key(("a", 0, "b")) == "s.yaml:2:5"
    assert located.of(("a", 0, "c")) == "s.yaml:3:5"
    assert located.of(("a", 0, "gone", "deeper")) == "s.yaml:2:5"
    assert located.of(()) == "s.yaml:1:1"


def test_aliases_are_expanded() -> None:
    assert read("a: &x {b: 1}\nc: *x\n") == {"a": {"b": 1}, "c": {"b": 1}}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "s.yaml:1:1: the file is empty"),
        ("# only a comment\n", "the file is empty"),
        ("a: 1\nb: 2\na: 3\n", "s.yaml:3:1: the key 'a' stands twice in one mapping: line 1 and line 3"),
        ("a: {1: x, 1.0: y}\n", "stands twice"),
        ("a:\n  b: 1\n\tc: 2\n", "s.yaml:3:1: a tab"),
        ("a: 1\n>>>>>>> branch\n", "s.yaml:2:1: a merge-conflict marker"),
        ("a: [1, 2\n", "not YAML: while parsing a flow sequence"),
        ("a: *x\n", "s.yaml:1:4: the alias *x names no anchor"),
        ("a: &x [*x]\n", "stands inside its own anchor"),
        ("a: !!str 1\n", "s.yaml:1:4: a YAML tag"),
        ("a: 1\n---\nb: 1\n", "s.yaml:2:1: a second document"),
        ("%YAML 1.1\n---\na: 1\n", "a spec is YAML 1.2"),
        ("a: &x {b: 1}\nc: {<<: *x}\n", "a merge key"),
        ("{[1]: 2}\n", "a list or mapping as a key"),
        ("a: 1e999\n", "too large for a float"),
        ("a: \x07\n", "s.yaml:1:4: a control character"),
        ('a: "\\ud800"\n', "half of a surrogate pair"),
        ("a: " + "9" * 5000, "a number of more than 400 digits"),
        ("[" * (MAX_DEPTH + 1), f"nested more than {MAX_DEPTH} levels"),
    ],
)
def test_refusals_say_where_and_why(text: str, told: str) -> None:
    with pytest.raises(SpecError) as caught:
        read(text)
    assert told in caught.value.message


@pytest.mark.parametrize(("content", "place"), [(b"a: \xe9\n", "1:4"), (b"a: 1\nb: \xff\n", "2:4")])
def test_other_encodings_are_refused_at_the_byte(content: bytes, place: str) -> None:
    with pytest.raises(SpecError, match=f"s.yaml:{place}: the file is not UTF-8"):
        read(content)


@given(st.text(alphabet="ab:[]{}-?&*!|>'\"%@`#, \n\t0.~<=", max_size=60))
def test_any_text_is_read_or_refused_in_one_way(text: str) -> None:
    with contextlib.suppress(SpecError):  # any other exception would be a traceback for a person
        read(text)
