"""Batches of payloads: the columns they become, what is refused, and never more memory than they pay for."""

import json
import struct
import tracemalloc
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from indexer.chain.codec import DecodeError
from indexer.chain.columns import arrow_schema, arrow_type, to_values
from indexer.chain.idl import load_idl
from indexer.chain.program import Program
from indexer.errors import DataError

IDLS = Path(__file__).parents[1] / "fixtures" / "idls"
KEY = bytes(range(32))


def program_of(*fields: object, types: list[dict[str, Any]] | None = None, **more: object) -> Program:
    """Return a program whose one event `E`, behind the byte 7, has the fields "f0", "f1", ..."""
    named = [{"name": f"f{index}", "type": field} for index, field in enumerate(fields)]
    document = {
        "metadata": {"name": "columns"},
        "instructions": [],
        "events": [{"name": "E", "discriminator": [7]}],
        "accounts": [{"name": "E", "discriminator": [7]}],
        "types": [{"name": "E", "type": {"kind": "struct", "fields": named}, **more}, *(types or [])],
    }
    return Program.from_idl(load_idl(json.dumps(document), source="the IDL"), bytes(32))


def with_discriminators(**discriminators: list[int]) -> Program:
    """Return a program of one event per discriminator, each with the field "value" of one byte."""
    body = {"kind": "struct", "fields": [{"name": "value", "type": "u8"}]}
    document = {
        "metadata": {"name": "columns"},
        "instructions": [],
        "events": [{"name": name, "discriminator": found} for name, found in discriminators.items()],
        "types": [{"name": name, "type": body} for name in discriminators],
    }
    return Program.from_idl(load_idl(json.dumps(document), source="the IDL"), bytes(32))


def said_alone(program: Program, payload: bytes) -> object:
    """Return what the single decoder says: name, values, trailing bytes; or kind and message."""
    try:
        return tuple(program.decode_event(payload))
    except DecodeError as error:
        return (error.kind, str(error))


def said_together(program: Program, payloads: list[bytes]) -> list[object]:
    """Return what a batch says of each payload, in the same form."""
    columns = program.decode_events(payloads)
    said: dict[int, object] = {error.row: (error.kind, error.reason) for error in columns.errors}
    for name, group in columns.groups.items():
        group.values.validate(full=True)
        values = to_values(program.events[name].type, group.values)
        for row, value, trailing in zip(group.rows.tolist(), values, group.trailing.tolist(), strict=True):
            said[row] = (name, value, trailing)
    return [said[row] for row in range(len(payloads))]


def assert_agree(program: Program, payloads: list[bytes]) -> None:
    assert said_together(program, payloads) == [said_alone(program, payload) for payload in payloads]


# Whatever was allocated from a pool must be freed before the pool is.
POOLS: list[pa.MemoryPool] = []


class Peak:
    """The most memory, Python's and Arrow's, that the body of a `with` had allocated at any time."""

    def __enter__(self) -> "Peak":
        self._before = pa.default_memory_pool()
        POOLS.append(pa.proxy_memory_pool(self._before))
        pa.set_memory_pool(POOLS[-1])
        tracemalloc.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bytes = tracemalloc.get_traced_memory()[1] + (POOLS[-1].max_memory() or 0)
        tracemalloc.stop()
        pa.set_memory_pool(self._before)


SIDE = {"name": "Side", "type": {"kind": "enum", "variants": [{"name": "Bid"}, {"name": "Ask"}]}}
KIND = {
    "name": "Kind",
    "type": {
        "kind": "enum",
        "variants": [
            {"name": "Market"},
            {"name": "Limit", "fields": [{"name": "price", "type": "u64"}]},
            {"name": "Pegged", "fields": ["i8", "string"]},
        ],
    },
}
EMPTY = {"name": "Empty", "type": {"kind": "struct"}}
TREE = {
    "name": "Tree",
    "type": {"kind": "struct", "fields": [{"name": "below", "type": {"vec": {"defined": "Tree"}}}]},
}
variant = pa.dictionary(pa.int8(), pa.utf8())


def struct_of(**fields: Any) -> Any:
    return pa.struct([pa.field(name.lstrip("_"), type_) for name, type_ in fields.items()])


TYPES: list[tuple[object, Any, object, object]] = [
    ("u8", pa.uint8(), 255, 255),
    ("i64", pa.int64(), -2, -2),
    ("u128", pa.decimal256(39, 0), (1 << 128) - 1, Decimal((1 << 128) - 1)),
    ("i128", pa.decimal256(39, 0), -(1 << 127), Decimal(-(1 << 127))),
    ("u256", pa.binary(32), 1 << 255, bytes(31) + b"\x80"),
    ("f32", pa.float32(), 0.5, 0.5),
    ("f64", pa.float64(), -0.1, -0.1),
    ("bool", pa.bool_(), True, True),
    ("string", pa.utf8(), "é", "é"),
    ("bytes", pa.binary(), b"\xff", b"\xff"),
    ("pubkey", pa.binary(32), KEY, KEY),
    ({"array": ["u8", 3]}, pa.binary(3), b"abc", b"abc"),
    ({"array": ["u8", 0]}, pa.binary(), b"", b""),
    ({"array": ["u8", 2000]}, pa.binary(), bytes(2000), bytes(2000)),
    ({"option": "u16"}, pa.uint16(), None, None),
    ({"option": {"option": "u16"}}, pa.uint16(), 7, 7),
    ({"coption": "u16"}, pa.uint16(), None, None),
    ({"vec": "u16"}, pa.list_(pa.uint16()), [1, 2], [1, 2]),
    ({"vec": "string"}, pa.list_(pa.utf8()), ["a", ""], ["a", ""]),
    ({"array": ["i16", 2]}, pa.list_(pa.int16(), 2), [-1, 1], [-1, 1]),
    ({"array": ["string", 2]}, pa.list_(pa.utf8(), 2), ["x", "y"], ["x", "y"]),
    ({"array": ["u64", 500]}, pa.list_(pa.uint64()), [5] * 500, [5] * 500),
    ({"array": ["string", 0]}, pa.list_(pa.utf8()), [], []),
    ({"tuple": ["u8", "string"]}, struct_of(_0=pa.uint8(), _1=pa.utf8()), [3, "x"], {"0": 3, "1": "x"}),
    ({"defined": "Side"}, variant, {"Ask": {}}, "Ask"),
    (
        {"defined": "Kind"},
        struct_of(
            variant=variant,
            Limit=struct_of(price=pa.uint64()),
            Pegged=struct_of(_0=pa.int8(), _1=pa.utf8()),
        ),
        {"Limit": {"price": 5}},
        {"variant": "Limit", "Limit": {"price": 5}, "Pegged": None},
    ),
    ({"defined": "Empty"}, pa.bool_(), {}, True),
    ({"option": {"defined": "Empty"}}, pa.bool_(), {}, True),
    ({"defined": "Tree"}, pa.utf8(), {"below": [{"below": []}]}, '{"below":[{"below":[]}]}'),
    ({"option": {"defined": "Tree"}}, pa.utf8(), None, None),
]


@pytest.mark.parametrize(("spelling", "type_", "value", "cell"), TYPES, ids=[json.dumps(t[0]) for t in TYPES])
@pytest.mark.parametrize("rows", [1, 50])
def test_every_type_has_its_column(spelling: object, type_: Any, value: object, cell: object, rows: int) -> None:
    """The type is known without data, the cell is what Arrow's users see, and the value comes back."""
    program = program_of("u8", spelling, "u8", types=[SIDE, KIND, EMPTY, TREE])
    values = {"f0": 1, "f1": value, "f2": 2}
    fields = program.events["E"].fields
    assert arrow_type(fields[1].type).equals(type_)
    group = program.decode_events([program.encode_event("E", values)] * rows).groups["E"]
    assert group.values.schema.equals(arrow_schema(fields))
    group.values.validate(full=True)
    assert group.values.column("f1").to_pylist() == [cell] * rows
    assert to_values(fields, group.values) == [values] * rows


def test_only_options_are_nullable() -> None:
    """A table made from the schema says which columns may be empty."""
    schema = arrow_schema(program_of("u8", {"option": "u8"}, {"coption": "u8"}).events["E"].type)
    assert [field.nullable for field in schema] == [False, True, True]


def test_rows_of_several_events_keep_their_places() -> None:
    """Each group says which payloads it is of, ascending; errors lie between them."""
    program = with_discriminators(A=[1] * 8, B=[2] * 8)
    a, b, unknown, short = b"\1" * 8 + b"\5", b"\2" * 8 + b"\6xy", b"\3" * 9, b"\1" * 8
    columns = program.decode_events([b, a, unknown, a, short, b])
    assert {name: group.rows.tolist() for name, group in columns.groups.items()} == {"A": [1, 3], "B": [0, 5]}
    assert columns.groups["B"].values.to_pydict() == {"value": [6, 6]}
    assert columns.groups["B"].trailing.tolist() == [2, 2]
    assert columns.errors == (
        (2, "unknown_discriminator", "the IDL has no event with the discriminator 0303030303030303"),
        (4, "short_payload", "A.value: 1 bytes needed at offset 8, 0 left"),
    )


@pytest.mark.parametrize(
    "program",
    [
        with_discriminators(A=[1], B=[2]),
        with_discriminators(A=[1, 0, 0], B=[1, 0, 1], C=[1, 0]),
        with_discriminators(A=[1, 1], B=[1, 1], C=[2, 2]),
        with_discriminators(A=[], B=[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]),
        with_discriminators(A=[1, 2, 3, 4, 5, 6, 7, 8, 9, 0], B=[1, 2, 3, 4, 5, 6, 7, 8, 9, 10], C=[0] * 12),
        with_discriminators(**{f"N{n}": [n, 7] for n in range(40)}),
        with_discriminators(**{f"N{n}": [n % 20, 7] for n in range(40)}),
        with_discriminators(),
    ],
    ids=["one", "prefix", "same", "empty", "long", "many", "many-same", "none"],
)
def test_discriminators_of_any_length(program: Program) -> None:
    """Found, unknown, ambiguous or too short, exactly as alone."""
    heads = [bytes([n, m]) for n in (0, 1, 2, 19, 39) for m in (0, 1, 2, 7)]
    long = [bytes(range(1, 9)) + end for end in (b"", b"\x09", b"\x09\0", b"\x09\x0a", b"\x09\0\5", b"\x09\x0a\5")]
    assert_agree(program, [b"", b"\1", *heads, *(h + b"\0" for h in heads), *(h + bytes(12) for h in heads), *long])


def test_a_tuple_struct_and_an_enum_as_accounts() -> None:
    """The one has the columns "0", "1", ...; the other those of its variants."""
    pair = {"name": "Pair", "type": {"kind": "struct", "fields": ["u8", "string"]}}
    document = {
        "metadata": {"name": "columns"},
        "instructions": [],
        "accounts": [{"name": n, "discriminator": [i]} for i, n in enumerate(["Pair", "Kind", "Side"])],
        "types": [pair, KIND, SIDE],
    }
    program = Program.from_idl(load_idl(json.dumps(document), source="the IDL"), bytes(32))
    rows: list[tuple[str, dict[str, Any]]] = [
        ("Pair", {"0": 1, "1": "x"}),
        ("Kind", {"Pegged": [1, "y"]}),
        ("Kind", {"Market": {}}),
        ("Side", {"Ask": {}}),
    ]
    columns = program.decode_accounts([program.encode_account(name, values) + b"\0" for name, values in rows])
    assert columns.errors == ()
    for name, group in columns.groups.items():
        type_ = program.accounts[name].type
        assert group.values.schema.equals(arrow_schema(type_))
        assert to_values(type_, group.values) == [values for found, values in rows if found == name]
        assert set(group.trailing.tolist()) == {1}
    assert columns.groups["Kind"].values.column_names == ["variant", "Limit", "Pegged"]
    assert columns.groups["Side"].values.to_pydict() == {"variant": ["Ask"]}


def test_arguments_of_instructions() -> None:
    """Those without any count their rows too."""
    document = {
        "metadata": {"name": "columns"},
        "instructions": [
            {"name": "go", "discriminator": [1], "accounts": [], "args": []},
            {"name": "pay", "discriminator": [2], "accounts": [], "args": [{"name": "amount", "type": "u64"}]},
        ],
    }
    program = Program.from_idl(load_idl(json.dumps(document), source="the IDL"), bytes(32))
    columns = program.decode_instructions([b"\1", b"\2" + bytes(8), b"\1\0", b"\2"])
    assert (columns.groups["go"].values.num_rows, columns.groups["go"].trailing.tolist()) == (2, [0, 1])
    assert to_values(program.instructions["go"].fields, columns.groups["go"].values) == [{}, {}]
    assert columns.groups["pay"].values.to_pydict() == {"amount": [0]}
    assert [(error.row, error.kind) for error in columns.errors] == [(3, "short_payload")]


@pytest.mark.parametrize(
    "type_", [pa.binary(), pa.large_binary(), pa.binary(3)], ids=["binary", "large_binary", "fixed_size_binary"]
)
def test_payloads_as_arrow_arrays(type_: Any) -> None:
    """Whole, as a slice that starts inside, in chunks, or as no payload at all."""
    program = program_of("u16")
    array = pa.array([b"\7\1\0", b"\7\2\0", b"\7\3\0"], type_)
    assert program.decode_events(array).groups["E"].values.to_pydict() == {"f0": [1, 2, 3]}
    part = program.decode_events(array[1:2]).groups["E"]
    assert (part.values.to_pydict(), part.rows.tolist()) == ({"f0": [2]}, [0])
    assert program.decode_events(pa.chunked_array([array, array])).groups["E"].values.num_rows == 6
    assert program.decode_events(array[:0]).groups == {}
    assert program.decode_events([]).groups == {}


@pytest.mark.parametrize(
    ("payloads", "message"),
    [
        (pa.array([b"\7", None]), "1 of 2 payloads are null"),
        ([b"\7", None], "1 of 2 payloads are null"),
        (pa.array(["x"]), "payloads are binary, not string"),
        ([1], "payloads are bytes"),
    ],
)
def test_what_is_no_payload_is_refused(payloads: Any, message: str) -> None:
    """That is the caller's mistake, and no row's."""
    with pytest.raises(DataError, match=message):
        program_of("u8").decode_events(payloads)


def test_strings_that_are_not_utf8_are_found_among_many() -> None:
    """Surrogates, overlong forms, cut sequences; the neighbours of a bad string are whole."""
    program = program_of("u8", "string", {"vec": "string"})
    bad = [b"\xff", b"\xed\xa0\x80", b"\xc0\x80", b"\xf4\x90\x80\x80", b"\xc3", b"\xe2\x82"]
    texts = ["plain", "é", "", "\U0010ffff", "\0"]
    payloads = []
    for number in range(300):
        raw = bad[number % 6] if number % 50 == 7 else texts[number % 5].encode()
        listed = bad[number % 6] if number % 70 == 11 else b"ok"
        payloads.append(
            b"\7\1" + struct.pack("<I", len(raw)) + raw + b"\1\0\0\0" + struct.pack("<I", len(listed)) + listed
        )
    assert_agree(program, payloads)
    assert len(program.decode_events(payloads).errors) == 11


DEEP = [
    {
        "name": f"D{n}",
        "type": {"kind": "struct", "fields": [{"name": "x", "type": {"option": {"defined": f"D{n + 1}"}}}]},
    }
    for n in range(28)
] + [{"name": "D28", "type": {"kind": "struct", "fields": [{"name": "x", "type": "string"}]}}]


def test_values_nested_too_deep_fail_as_they_do_alone() -> None:
    """Types that contain themselves by their values, others by their definition."""
    program = program_of({"defined": "D0"}, types=DEEP)
    assert_agree(program, [b"\7" + b"\1" * depth + b"\0" * 5 for depth in range(29)] * 2)
    assert program.decode_events([b"\7" + b"\1" * 40 + bytes(9)]).errors[0].kind == "too_deep"
    tree = program_of({"defined": "Tree"}, types=[TREE])
    assert_agree(tree, [b"\7" + b"\1\0\0\0" * depth + bytes(4) for depth in (0, 1, 20, 21, 22, 100)])
    assert_agree(program_of({"defined": "E"}), [b"\7" + bytes(9)] * 2)


def test_a_type_of_too_many_parts_is_text_wherever_it_lies() -> None:
    """In C layout too, where its neighbours keep their padding."""
    big = {
        "name": "Big",
        "serialization": "bytemuck",
        "repr": {"kind": "c"},
        "type": {"kind": "struct", "fields": [{"name": f"x{n}", "type": "bool"} for n in range(5000)]},
    }
    some = {"defined": "Big"}
    within: dict[str, Any] = {
        "name": "C",
        "serialization": "bytemuck",
        "repr": {"kind": "c"},
        "type": {
            "kind": "struct",
            "fields": [
                {"name": n, "type": t}
                for n, t in zip("abcd", ["u8", {"coption": some}, {"array": [some, 2]}, "u64"], strict=True)
            ],
        },
    }
    program = program_of("u8", {"defined": "C"}, {"vec": some}, types=[big, within])
    assert pa.types.is_string(arrow_type(program.events["E"].fields[2].type).value_type)
    one = {f"x{n}": n % 3 == 0 for n in range(5000)}
    inside = {"a": 1, "b": one, "c": [one, one], "d": 2}
    good = program.encode_event("E", {"f0": 3, "f1": inside, "f2": [one]})
    none = program.encode_event("E", {"f0": 3, "f1": inside | {"b": None}, "f2": []})
    assert_agree(program, [good, none, good[:-1], none[:-1], good[:9000], good[:20] + b"\2" + good[21:], none + b"\1"])


@pytest.mark.parametrize(
    "element",
    ["u8", "u64", "bool", "u128", "string", "pubkey", {"vec": "u8"}, {"option": "u8"}, {"defined": "Empty"}],
    ids=json.dumps,
)
@pytest.mark.parametrize("rows", [1, 200])
def test_a_vec_that_claims_all_elements_there_are_costs_nothing(element: object, rows: int) -> None:
    """2^32 - 1 elements in 40 bytes, once or in every row: refused before anything is made for them."""
    program = program_of({"vec": element}, types=[EMPTY])
    program.decode_events([program.encode_event("E", {"f0": []})])
    payloads = [b"\7\xff\xff\xff\xff" + bytes(36)] * rows
    with Peak() as peak:
        columns = program.decode_events(payloads)
    assert peak.bytes < 2_000_000
    assert columns.groups == {}
    assert len(columns.errors) == rows
    assert_agree(program, payloads[:3])


def test_an_absent_value_of_a_large_type_takes_no_room() -> None:
    """One byte says that 64 kB are not there; Arrow must not keep 64 kB for each."""
    program = program_of({"vec": {"option": {"array": [{"array": ["u64", 128]}, 64]}}})
    payload = b"\7" + (10_000).to_bytes(4, "little") + bytes(10_000)
    with Peak() as peak:
        column: Any = program.decode_events([payload] * 40).groups["E"].values.column("f0")
    assert peak.bytes < 60_000_000
    assert column.flatten().null_count == 400_000


@pytest.mark.parametrize("spelling", ["{}", '{{"option": {}}}', '{{"vec": {}}}', '{{"array": [{{"option": {}}}, 2]}}'])
def test_payloads_that_end_early_take_no_room(spelling: str) -> None:
    """Thousands of payloads of a few bytes, of a type of 80 kB, beside one that is whole."""
    program = program_of("u8", json.loads(spelling.format('{"array": ["u64", 10000]}')), "string")
    value: Any = list(range(10_000))
    whole: Any = {"{": value, "o": value, "v": [value], "a": [value, value]}["{" if spelling == "{}" else spelling[3]]
    values = {"f0": 1, "f1": whole, "f2": "x"}
    cut = b"\7\1\1\0\0\0"
    payloads = [cut] * 5000 + [program.encode_event("E", values)] + [cut + b"\0"] * 5000
    with Peak() as peak:
        columns = program.decode_events(payloads)
    assert peak.bytes < 40_000_000
    assert len(columns.errors) == 10_000
    assert columns.groups["E"].rows.tolist() == [5000]
    assert to_values(program.events["E"].fields, columns.groups["E"].values) == [values]


def test_the_room_of_an_absent_coption_may_hold_anything() -> None:
    """Bytes that would be no bool, and no variant, if the value were there."""
    program = program_of({"coption": {"tuple": ["bool", {"defined": "Side"}]}}, types=[SIDE])
    payloads = [b"\7" + bytes([tag, 0, 0, 0, flag, side]) for tag in (0, 1, 2) for flag in (0, 9) for side in (1, 9)]
    assert_agree(program, payloads)
    assert len(program.decode_events(payloads).errors) == 7


def test_lists_of_very_different_lengths() -> None:
    """One of thousands of elements beside many of few: all are found."""
    program = program_of({"vec": {"option": "string"}}, {"vec": {"vec": "u16"}}, "u8")
    payloads = [
        program.encode_event(
            "E",
            {
                "f0": [None if n % 3 else str(n) for n in range(length)],
                "f1": [list(range(n % 4)) for n in range(length)],
                "f2": 9,
            },
        )
        for length in [0, 1, 2, 3000, *range(60), 7]
    ]
    payloads[20] = payloads[20][:-9]
    payloads[50] = payloads[50].replace(b"\1\1\0\0\0", b"\1\2\0\0\0")
    assert_agree(program, payloads)


def test_accounts_and_events_of_real_programs() -> None:
    """Generics, aliases, legacy spelling, C layout with its padding; and the account that contains itself."""
    registry = Program.from_idl(load_idl((IDLS / "registry.json").read_bytes(), source="registry"))
    node: dict[str, Any] = {"value": 1, "next": {"value": 2, "next": None}}
    zone = {"flag": 5, "amount": 6, "wide": 7, "small": 8}
    data = [registry.encode_account("Zone", zone), registry.encode_account("Node", node)] * 20
    groups = registry.decode_accounts(data).groups
    assert to_values(registry.accounts["Zone"].type, groups["Zone"].values) == [zone] * 20
    assert to_values(registry.accounts["Node"].type, groups["Node"].values) == [node] * 20
    assert groups["Node"].values.schema.field("next").type == pa.utf8()
    market = Program.from_idl(load_idl((IDLS / "market_legacy.json").read_bytes(), source="market"))
    book = {
        "authority": KEY,
        "orders": [
            {"price": 1, "kind": {"Market": {}}, "expiry": None},
            {"price": 2, "kind": {"Limit": {"price": 3, "postOnly": True}}, "expiry": -4},
            {"price": 5, "kind": {"Pegged": [-6, 7]}, "expiry": 8},
        ],
        "feedId": b"feed",
        "label": "ß",
        "isOpen": False,
    }
    group = market.decode_accounts([market.encode_account("OrderBook", book)] * 40).groups["OrderBook"]
    assert to_values(market.accounts["OrderBook"].type, group.values) == [book] * 40
    # Rows may be sliced and taken before they are read back.
    assert to_values(market.accounts["OrderBook"].type, group.values.slice(7, 2)) == [book] * 2
