"""Random IDLs and random payloads of them: a batch says what the single decoder says of each, errors included."""

from typing import Any

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.chain.codec import DecodeError
from indexer.chain.columns import Columns, RowError, arrow_schema, to_values
from indexer.chain.program import Program
from tests.fixtures.random_idls import programs_with_rows


def rows_of(program: Program, columns: Columns) -> dict[int, tuple[str, Any, int] | RowError]:
    """Return what a batch says row by row: the name, values and trailing bytes, or the error."""
    found: dict[int, tuple[str, Any, int] | RowError] = {error.row: error for error in columns.errors}
    assert [error.row for error in columns.errors] == sorted(found)
    for name, group in columns.groups.items():
        type_ = program.events[name].type
        group.values.validate(full=True)
        assert group.values.schema.equals(arrow_schema(type_))
        assert group.values.schema.equals(arrow_schema(program.events[name].fields))
        rows = group.rows.tolist()
        assert rows == sorted(rows)
        assert found.keys().isdisjoint(rows)
        values = to_values(type_, group.values)
        for row, value, trailing in zip(rows, values, group.trailing.tolist(), strict=True):
            found[row] = (name, value, trailing)
    return found


def one_by_one(program: Program, payloads: list[bytes]) -> dict[int, tuple[str, Any, int] | RowError]:
    """Return the same, from the single decoder."""
    found: dict[int, tuple[str, Any, int] | RowError] = {}
    for row, payload in enumerate(payloads):
        try:
            name, values, trailing = program.decode_event(payload)
            found[row] = (name, values, trailing)
        except DecodeError as error:
            found[row] = RowError(row, error.kind, str(error))
    return found


def assert_agree(program: Program, payloads: list[bytes]) -> None:
    """A NaN is not equal to itself, its text is."""
    batch = rows_of(program, program.decode_events(payloads))
    assert {row: repr(batch[row]) for row in sorted(batch)} == {
        row: repr(said) for row, said in one_by_one(program, payloads).items()
    }


@settings(max_examples=120, deadline=None)
@given(programs_with_rows())
def test_what_is_encoded_is_decoded_again_in_a_batch(
    case: tuple[Program, list[tuple[str, dict[str, Any]]]],
) -> None:
    """Any type of any IDL; the Arrow arrays are sound, and of the types known beforehand."""
    program, rows = case
    payloads = [program.encode_event(name, values) for name, values in rows]
    columns = program.decode_events(pa.array(payloads, pa.binary()))
    assert columns.errors == ()
    assert rows_of(program, columns) == {row: (name, values, 0) for row, (name, values) in enumerate(rows)}
    arguments = [values for name, values in rows if name == "E"]
    if arguments:
        group = program.decode_instructions([program.encode_instruction("go", v) for v in arguments]).groups["go"]
        assert to_values(program.instructions["go"].fields, group.values) == arguments


def changed(data: st.DataObject, payload: bytes) -> bytes:
    """Draw what happens to a payload on its way."""
    how = data.draw(st.sampled_from(["nothing", "cut", "byte", "length", "trailing", "discriminator"]))
    position = data.draw(st.integers(min(8, len(payload)), len(payload)))
    if how == "cut":
        return payload[: data.draw(st.integers(0, len(payload)))]
    if how == "byte":
        return payload[:position] + bytes([data.draw(st.integers(0, 255))]) + payload[position + 1 :]
    if how == "length":
        # Over whatever is there: where it is a length, it claims more than any payload has.
        return payload[:position] + b"\xff" * data.draw(st.integers(1, 4)) + payload[position + 4 :]
    if how == "trailing":
        return payload + data.draw(st.binary(max_size=40))
    return b"\1" + payload[1:7] + data.draw(st.binary(max_size=40)) if how == "discriminator" else payload


@settings(max_examples=120, deadline=None)
@given(programs_with_rows(), st.data())
def test_changed_payloads_fail_or_decode_as_they_do_alone(
    case: tuple[Program, list[tuple[str, dict[str, Any]]]], data: st.DataObject
) -> None:
    """Row by row the same values, trailing bytes and messages; a bad payload changes nothing about its neighbours."""
    program, rows = case
    payloads = [program.encode_event(name, values) for name, values in rows]
    for row in range(min(len(payloads), 6)):
        payloads[row] = changed(data, payloads[row])
    assert_agree(program, payloads)
    assert_agree(program, [payloads[0]] * 40)


@settings(max_examples=80, deadline=None)
@given(programs_with_rows(), st.lists(st.binary(max_size=60), min_size=1, max_size=40))
def test_any_bytes_behind_a_discriminator(
    case: tuple[Program, list[tuple[str, dict[str, Any]]]], bodies: list[bytes]
) -> None:
    """Bytes that nobody encoded."""
    program, _ = case
    assert_agree(program, [bytes(range(1, 9)) + body for body in bodies])
