"""JSON from outside: what is accepted, and what is refused because it could mean two things."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.json import MAX_DEPTH, InvalidJson, NotJson, canonical_json, parse_json

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda children: st.lists(children) | st.dictionaries(st.text(), children),
    max_leaves=20,
)


def nested(depth: int, *, bracket: str = "[]") -> bytes:
    return (bracket[0] * depth + bracket[1] * depth).encode()


def test_json_as_deep_as_allowed() -> None:
    parse_json(nested(MAX_DEPTH))
    parse_json(b'{"a":' * MAX_DEPTH + b"1" + b"}" * MAX_DEPTH)


@pytest.mark.parametrize("depth", [MAX_DEPTH + 1, 1_000, 100_000])
def test_json_too_deep(depth: int) -> None:
    with pytest.raises(InvalidJson, match="nested deeper"):
        parse_json(nested(depth))
    with pytest.raises(InvalidJson, match="nested deeper"):
        parse_json(b'{"a":' * depth + b"1" + b"}" * depth)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"{",
        b"nope",
        b"NaN",
        b"1e999",
        b'{"a":NaN}',
        b"Infinity",
        b"-Infinity",
        b"{'a':1}",
        b'{"a":1,}',
        b"{}{}",
    ],
)
def test_not_json(body: bytes) -> None:
    with pytest.raises(InvalidJson):
        parse_json(body)


@pytest.mark.parametrize(
    "body", [b'"\xff"', b'{"a":"\xc3\x28"}', b'"\xed\xa0\x80"', '{"a":1}'.encode("utf-16")]
)
def test_not_utf8(body: bytes) -> None:
    with pytest.raises(InvalidJson):
        parse_json(body)


def test_lone_surrogate_in_an_escape_is_refused() -> None:
    """It could not be written as UTF-8 again."""
    with pytest.raises(InvalidJson):
        parse_json(b'{"a":"\\ud800"}')


@given(json_values)
def test_json_that_is_not_too_deep_is_read_as_everybody_reads_it(value: object) -> None:
    assert parse_json(json.dumps(value).encode()) == value


@pytest.mark.parametrize(
    ("body", "name"),
    [
        (b'{"order_id":"1","order_id":"2"}', "order_id"),
        (b'{"a":1,"a":1}', "a"),
        (b'{"a":{"b":[{"c":1,"d":":","c":2}]}}', "c"),
        (b'[{"a":1},{"b":1,"b":2}]', "b"),
        (b'{"a":1,"\\u0061":2}', "a"),
        (b'{ "\xc3\xa9" : 1 , "\\u00e9" : 2 }', "é"),
        (b'{"":1,"":2}', ""),
        (b'{"a\\"b:":1,"a\\"b:":2}', 'a"b:'),
    ],
)
def test_a_name_twice_in_one_object_is_refused_and_named(body: bytes, name: str) -> None:
    with pytest.raises(InvalidJson) as caught:
        parse_json(body)
    assert str(caught.value) == f"an object has the name {name!r} twice"
    assert not isinstance(caught.value, NotJson)


@pytest.mark.parametrize(
    "body",
    [
        b'{"a":{"a":{"a":1}}}',
        b'[{"a":1},{"a":1}]',
        b'{"a":"a\\":\\"b:","b":"::","c":["\\\\",":"]}',
        b'{"A":1,"a":2}',
        '{"é":1,"e\u0301":2}'.encode(),
    ],
)
def test_colons_in_texts_and_names_of_other_objects_are_no_repetition(body: bytes) -> None:
    assert parse_json(body) == json.loads(body)


@given(json_values, st.integers(0, 3))
def test_spacing_escapes_and_order_of_members_change_nothing(value: object, indent: int) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=indent % 2 == 0, sort_keys=indent > 1)
    assert canonical_json(parse_json(text.encode())) == canonical_json(parse_json(json.dumps(value).encode()))


@pytest.mark.parametrize(
    ("one", "other"), [(b"{}", b"[]"), (b"1", b'"1"'), (b"[1,2]", b"[2,1]"), (b'{"a":null}', b"{}")]
)
def test_other_json_stays_other(one: bytes, other: bytes) -> None:
    assert canonical_json(parse_json(one)) != canonical_json(parse_json(other))
