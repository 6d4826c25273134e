"""The bytes of states and records: what was written is read, and nothing else is."""

import json

import pytest
from helpers import HEADER, KEY, OTHER, PLAN
from hypothesis import given
from hypothesis import strategies as st

from study.errors import Damaged
from study.store import encoding

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda values: st.lists(values) | st.dictionaries(st.text(), values),
    max_leaves=9,
)
RECORD = st.dictionaries(st.text().filter(lambda name: name != "sha256"), JSON, max_size=4)


def changed(data):
    """The bytes with a bit of one of them flipped, or one of them left out or doubled."""
    for place, byte in enumerate(data):
        for instead in (*(bytes([byte ^ 1 << bit]) for bit in range(8)), b"", bytes([byte, byte])):
            yield data[:place] + instead + data[place + 1 :]


@given(RECORD)
def test_a_record_is_json_that_begins_with_its_checksum(record):
    data = encoding.encode_record(PLAN, record)
    checksum, *others = json.loads(data).items()
    assert (checksum[0], len(checksum[1]), dict(others)) == ("sha256", 64, record)
    assert encoding.decode_record(PLAN, data) == record


@pytest.mark.parametrize("record", [{}, {"a": 1}, {"of": [1.5, None], "é": "\n"}])
def test_no_byte_of_a_record_can_be_another(record):
    data = encoding.encode_record(PLAN, record)
    for other in changed(data):
        with pytest.raises(ValueError, match=f"^not the record of {PLAN}$"):
            encoding.decode_record(PLAN, other)


def test_a_record_of_another_path_is_not_read():
    with pytest.raises(ValueError, match=r"^not the record of b$"):
        encoding.decode_record("b", encoding.encode_record("a", {"of": "a"}))


@given(st.binary(max_size=60))
def test_a_state_is_its_header_and_its_payload(payload):
    data = encoding.encode_state(HEADER, payload)
    header, read = encoding.decode_state(KEY, data)
    assert (read, header) == (payload, header | HEADER)
    assert encoding.decode_header(KEY, data[: encoding.head_end(data)]) == header


def test_no_byte_of_a_state_can_be_another():
    for other in changed(encoding.encode_state(HEADER, b"tensors")):
        with pytest.raises(Damaged, match=KEY):
            encoding.decode_state(KEY, other)


def test_a_state_of_another_name_is_not_read():
    with pytest.raises(Damaged, match=OTHER):
        encoding.decode_state(OTHER, encoding.encode_state(HEADER, b""))
