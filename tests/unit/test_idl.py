"""Reading IDLs: both formats, every spelling, and one sentence with the JSON path for what is wrong."""

import copy
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.chain import types as t
from indexer.chain.idl import load_idl
from indexer.chain.program import Program
from indexer.errors import CapstanError, DataError, SettingsError

IDLS = Path(__file__).parents[1] / "fixtures" / "idls"


def read(name: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((IDLS / name).read_text())
    return document


def load(document: object) -> Program:
    return Program.from_idl(load_idl(json.dumps(document), source="the IDL"), bytes(32))


def anchor(namespace: str, name: str) -> bytes:
    return hashlib.sha256(f"{namespace}:{name}".encode()).digest()[:8]


def test_legacy_names_are_hashed_as_anchor_hashes_them() -> None:
    """Instructions in snake_case with acronyms and digits, accounts and events by their own name."""
    program = load(read("market_legacy.json"))
    assert program.idl.legacy
    assert program.name == "market_place"
    assert program.instructions["placeOrderV2"].discriminator == anchor("global", "place_order_v2")
    assert program.instructions["closeATA"].discriminator == anchor("global", "close_ata")
    assert program.accounts["OrderBook"].discriminator == anchor("account", "OrderBook")
    assert program.events["Filled"].discriminator == anchor("event", "Filled")
    assert program.idl.errors[0].code == 6000


def test_legacy_accounts_in_camel_case_are_hashed_by_the_name_of_their_rust_type() -> None:
    """The IDL that Anchor writes for TypeScript is a legacy one but for the first letters of its accounts."""
    document = read("market_legacy.json")
    document["accounts"][0]["name"] = "orderBook"
    assert load(document).accounts["orderBook"].discriminator == anchor("account", "OrderBook")


def test_fields_of_one_name_are_told_apart() -> None:
    """Rust's `padding` and `_padding` are one name in a legacy IDL: both are read, the second with a number behind."""
    document = read("market_legacy.json")
    fields = [{"name": name, "type": "u8"} for name in ("padding", "padding", "padding_2", "end", "padding")]
    document["events"][0]["fields"] = fields
    document["instructions"][0]["accounts"] = [{"name": "vault"}, {"name": "vault"}]
    program = load(document)
    name = document["events"][0]["name"]
    decoded = program.decode_event(anchor("event", name) + bytes([1, 2, 3, 4, 5]))
    assert decoded.values == {"padding": 1, "padding_3": 2, "padding_2": 3, "end": 4, "padding_4": 5}
    assert program.encode_event(name, decoded.values)[8:] == bytes([1, 2, 3, 4, 5])
    assert [account.name for account in program.idl.instructions[0].accounts] == ["vault", "vault_2"]


def test_a_type_that_is_defined_twice_is_refused_where_it_is_used() -> None:
    """Modules may each have one of that name; only a reference to it has no answer."""
    twice = [
        {"name": "Order", "type": {"kind": "struct", "fields": [{"name": "at", "type": u}]}} for u in ("u8", "u64")
    ]
    document = read("registry.json")
    document["types"] += twice
    assert "Order" not in load(document).idl.types
    document["types"].append(struct("Book", defined("Order")))
    with pytest.raises(
        DataError, match=r"\.defined is 'Order', which \$\.types defines twice, differently; remove one"
    ):
        load(document)
    document["types"].pop()
    document["accounts"].append({"name": "Order", "discriminator": [9]})
    with pytest.raises(DataError, match=r"\.name is 'Order', which \$\.types defines twice"):
        load(document)


def test_maps_and_sets_are_lists_as_borsh_writes_them() -> None:
    """Shank's spellings: a count, then the pairs or the elements."""
    program = load(
        event_of(struct("E", {"hashMap": ["u8", "string"]}, {"bTreeMap": ["u8", "u8"]}, {"hashSet": "u16"}, "bool"))
    )
    pairs = bytes([1, 0, 0, 0, 7, 1, 0, 0, 0]) + b"x"
    decoded = program.decode_event(bytes([0]) + pairs + bytes([1, 0, 0, 0, 2, 3]) + bytes([1, 0, 0, 0, 5, 0, 1]))
    assert decoded.values == {"f0": [[7, "x"]], "f1": [[2, 3]], "f2": [5], "f3": True}
    assert decoded.trailing == 0


def test_legacy_address_is_found_in_the_metadata() -> None:
    """A legacy IDL keeps its address where the deployment wrote it."""
    idl = load_idl((IDLS / "market_legacy.json").read_bytes(), source="the IDL")
    assert idl.address == "Stake11111111111111111111111111111111111111"
    assert len(Program.from_idl(idl).program_id) == 32


def test_the_format_is_told_by_shape_not_by_the_spec_field() -> None:
    """A new IDL without `spec` is a new one; a legacy one that claims a spec is a legacy one."""
    new = read("registry.json")
    del new["metadata"]["spec"]
    assert not load(new).idl.legacy
    old = read("market_legacy.json")
    old["metadata"]["spec"] = "0.1.0"
    program = load(old)
    assert program.idl.legacy
    assert "Filled" in program.events


def test_discriminators_of_any_length_are_taken_as_given() -> None:
    """One byte, two, three or nine: a discriminator is what the IDL says."""
    program = load(read("registry.json"))
    assert program.name == "name_registry"
    assert program.instructions["register"].discriminator == b"\x09"
    assert program.accounts["Node"].discriminator == bytes(range(4, 13))
    assert program.events["Registered"].discriminator == b"\xaa\xbb"


def test_a_missing_discriminator_of_a_new_idl_is_computed() -> None:
    """An event without its discriminator still has the one that Anchor gives it."""
    document = read("registry.json")
    del document["events"][0]["discriminator"]
    assert load(document).events["Registered"].discriminator == anchor("event", "Registered")


def test_account_groups_are_flattened_with_their_path() -> None:
    """A group within a group names its members by the whole way there, in order, with their flags."""
    legacy = load(read("market_legacy.json")).instructions["placeOrderV2"].accounts
    assert [account.name for account in legacy] == ["owner", "book.bids", "book.vaults.base", "referrer"]
    assert (legacy[0].signer, legacy[1].writable, legacy[3].optional) == (True, True, True)
    new = load(read("registry.json")).instructions["register"].accounts
    assert [account.name for account in new] == ["payer", "pair.left", "pair.right", "system_program"]
    assert (new[1].writable, new[2].writable, new[3].address) == (False, True, "1" * 32)


def test_aliases_are_followed_in_the_fields_of_events() -> None:
    """Whoever makes columns of the fields sees what an alias stands for; a newtype stays a type of its own."""
    price, at, *_ = load(read("registry.json")).events["Registered"].fields
    assert price == t.Field("price", t.U64())
    assert isinstance(at.type, t.Defined)
    assert at.type.definition().body == t.Struct(t.Tuple((t.I64(),)))


def test_generics_are_replaced_by_their_arguments() -> None:
    """Type and const arguments both, the const one as an array's length."""
    pair = load(read("registry.json")).events["Registered"].fields[2].type
    assert isinstance(pair, t.Defined)
    assert pair.definition().body == t.Struct((t.Field("first", t.Bool()), t.Field("rest", t.Array(t.Bool(), 3))))


def test_legacy_generics_are_understood() -> None:
    """The three spellings of 0.29: generic, genericLenArray, definedWithTypeArgs."""
    document = read("market_legacy.json")
    document["types"].append(
        {
            "name": "Ring",
            "generics": ["T", "N"],
            "type": {
                "kind": "struct",
                "fields": [{"name": "items", "type": {"genericLenArray": [{"generic": "T"}, "N"]}}],
            },
        }
    )
    arguments = [{"type": "u32"}, {"value": "2"}]
    ring = {"definedWithTypeArgs": {"name": "Ring", "args": arguments}}
    document["events"][1]["fields"].append({"name": "ring", "type": ring, "index": False})
    program = load(document)
    values = {"open": True, "at": -1, "ring": {"items": [7, 8]}}
    payload = program.encode_event("Opened", values)
    assert payload[8:] == b"\1" + b"\xff" * 8 + b"\7\0\0\0\x08\0\0\0"
    assert program.decode_event(payload).values == values


def test_an_event_may_share_its_name_with_another_type() -> None:
    """Legacy events live apart from types: neither definition replaces the other."""
    document = read("market_legacy.json")
    document["events"].append({"name": "Order", "fields": [{"name": "id", "type": "u8", "index": False}]})
    program = load(document)
    assert program.events["Order"].discriminator == anchor("event", "Order")
    assert program.decode_event(anchor("event", "Order") + b"\5").values == {"id": 5}
    assert program.encode_account(
        "OrderBook",
        {
            "authority": bytes(32),
            "orders": [{"price": 1, "kind": {"Market": {}}, "expiry": None}],
            "feedId": bytes(4),
            "label": "",
            "isOpen": False,
        },
    )


def test_duplicate_and_prefix_colliding_discriminators_are_reported() -> None:
    """Both are named with their place, and bytes that match both are refused instead of guessed."""
    document = read("registry.json")
    document["accounts"].append({"name": "Millis", "discriminator": [1, 2, 3, 4]})
    document["accounts"].append({"name": "Nothing", "discriminator": [1, 2, 3, 4]})
    program = load(document)
    zone_millis, zone_nothing, millis_nothing = program.idl.conflicts
    assert "Zone and Millis begin alike" in zone_millis
    assert "Zone and Nothing begin alike" in zone_nothing
    assert "Millis and Nothing are the same" in millis_nothing
    with pytest.raises(DataError, match="can be any of Zone, Millis, Nothing") as error:
        program.decode_account(bytes([1, 2, 3, 4]) + bytes(40))
    assert getattr(error.value, "kind", None) == "ambiguous_discriminator"
    assert program.decode_account(bytes([1, 2, 3, 9]) + bytes(39)).name == "Zone"


def test_without_any_address_a_program_needs_one() -> None:
    """The operator is told to give the id, not to look at a traceback."""
    document = read("registry.json")
    del document["address"]
    with pytest.raises(SettingsError, match="give the program id"):
        Program.from_idl(load_idl(json.dumps(document), source="the IDL"))


def change(path: str, to: object) -> Callable[[dict[str, Any]], None]:
    return change_at([int(step) if step.isdecimal() else step for step in path.split("/")], to)


def change_at(path: Sequence[str | int], to: object) -> Callable[[dict[str, Any]], None]:
    def apply(document: Any) -> None:
        for step in path[:-1]:
            document = document[step]
        document[path[-1]] = to

    return apply


FIELD = "types/5/type/fields/0/type"
ARGUMENT = "instructions/0/args/0/type"
MALFORMED: list[tuple[str, str, object]] = [
    ("$.instructions is not a list", "instructions", {}),
    ("$.instructions[0] is not an object", "instructions/0", 3),
    ("$.instructions[0].args[0].type.defined.generics[1] is not", f"{ARGUMENT}/defined/generics/1", {"kind": "const"}),
    ("$.instructions[0].args[0].type.defined gives 'Pair' 0 generic", ARGUMENT, {"defined": "Pair"}),
    ("$.instructions[0].accounts[1].accounts[0].name is missing", "instructions/0/accounts/1/accounts/0", {}),
    ("$.instructions[0].discriminator is not a list of bytes", "instructions/0/discriminator", [256]),
    ("$.accounts[0].name is 'Gone', which $.types does not define", "accounts/0/name", "Gone"),
    ("$.address is 'nowhere', which is not an address", "address", "nowhere"),
    ("$.metadata.name is missing", "metadata", {}),
    ("$.types[5].type.fields[0].type is the unknown type 'u7'", FIELD, "u7"),
    ("$.types[5].type.fields[0].type.hashMap is not a list of a key's and", FIELD, {"hashMap": ["u8"]}),
    ("$.types[5].type.kind is 'union', not struct, enum or type", "types/5/type/kind", "union"),
    ("$.types[5].type.fields[0].type.array[1] is -1, not a length", FIELD, {"array": ["u8", -1]}),
    ("$.types[5].type.fields[0].type.generic is 'T', which is not among the generics", FIELD, {"generic": "T"}),
    ("$.types[4].serialization is 'json', not borsh", "types/4/serialization", "json"),
    ("leads in a circle", "types/1/type/alias", {"defined": {"name": "Price"}}),
]


@pytest.mark.parametrize(("sentence", "place", "to"), MALFORMED, ids=[case[0] for case in MALFORMED])
def test_a_malformed_idl_gets_one_sentence_with_the_json_path(sentence: str, place: str, to: object) -> None:
    """The message says where, what, and in which file; it is one line."""
    document = copy.deepcopy(read("registry.json"))
    change(place, to)(document)
    with pytest.raises(DataError) as error:
        load_idl(json.dumps(document), source="registry.json")
    assert str(error.value).startswith("registry.json is not a valid IDL: ")
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", b"\xff\xfe", "[" * 100_000, '"\ud800"'])
def test_what_is_no_json_object_is_refused(text: str | bytes) -> None:
    """Not JSON, not an object, not UTF-8, nested without end: one sentence each."""
    with pytest.raises(DataError, match="some file is not"):
        load_idl(text, source="some file")


def test_custom_serialization_is_refused_by_name() -> None:
    """What only the program's own code can read is not guessed at; the type and its serialization are named."""
    document = read("registry.json")
    document["types"][2]["serialization"] = {"custom": "zigzag"}
    with pytest.raises(DataError, match=r"the type Millis is serialized by its own code \(custom:zigzag\)"):
        load(document)


def event_of(*definitions: dict[str, Any]) -> dict[str, Any]:
    """Return an IDL whose event is the first of `definitions`."""
    return {
        "metadata": {"name": "hostile"},
        "instructions": [],
        "events": [{"name": definitions[0]["name"], "discriminator": [0]}],
        "types": list(definitions),
    }


def struct(name: str, *fields: object, **more: object) -> dict[str, Any]:
    named = [{"name": f"f{index}", "type": field} for index, field in enumerate(fields)]
    return {"name": name, "type": {"kind": "struct", "fields": named}, **more}


def defined(name: str, *arguments: object) -> dict[str, Any]:
    return {"defined": {"name": name, "generics": [{"kind": "type", "type": a} for a in arguments]}}


T = [{"kind": "type", "name": "T"}]
DOUBLING = [struct(f"S{i}", defined(f"S{i + 1}"), defined(f"S{i + 1}")) for i in range(40)]
HOSTILE: dict[str, dict[str, Any]] = {
    "a generic that grows without end": event_of(
        struct("E", defined("G", "u8")),
        struct("G", {"option": defined("G", {"vec": {"generic": "T"}})}, generics=T),
    ),
    "a generic that doubles with each level": event_of(
        struct("E", defined("G", "u8")),
        struct("G", {"option": defined("G", {"tuple": [{"generic": "T"}] * 2})}, generics=T),
    ),
    "2^40 fields without a byte": event_of(*DOUBLING, struct("S40")),
    "a large array of nothing": event_of(struct("E", {"array": [defined("N"), 1 << 40]}), struct("N")),
    "an array larger than any account": event_of(struct("E", {"array": ["u64", 1 << 60]})),
    "arrays in arrays larger than any account": event_of(
        struct("E", {"array": [{"array": [{"array": ["u32", 1 << 20]}, 1 << 20]}, 1 << 20]})
    ),
    "a bytemuck type inside itself": event_of(struct("E", defined("E"), serialization="bytemuck")),
    "a bytemuck type with a vec": event_of(struct("E", {"vec": "u8"}, serialization="bytemuck")),
    "a bytemuck type with a string": event_of(struct("E", "string", serialization="bytemuck")),
    "a coption of a string": event_of(struct("E", {"coption": "string"})),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_an_idl_without_a_possible_layout_is_refused_at_once(name: str) -> None:
    """Types that have no end or no size cost a sentence, not the memory."""
    with pytest.raises(DataError):
        load(HOSTILE[name])


def test_many_bytes_by_doubling_compile_and_are_merely_short() -> None:
    """A type of 2^30 bytes made of 31 definitions is known at once, and no payload is long enough."""
    chain = [struct(f"S{i}", defined(f"S{i + 1}"), defined(f"S{i + 1}")) for i in range(30)]
    program = load(event_of(*chain, struct("S30", "u8")))
    with pytest.raises(DataError, match="needed at offset"):
        program.decode_event(bytes(50))


json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def places(document: object, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    found = [path] if path else []
    if isinstance(document, dict):
        for key, value in document.items():
            found += places(value, (*path, key))
    elif isinstance(document, list):
        for index, value in enumerate(document):
            found += places(value, (*path, index))
    return found


DOCUMENTS = {name: read(name) for name in ("registry.json", "market_legacy.json")}
PLACES = [(name, place) for name, document in DOCUMENTS.items() for place in places(document)]


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(PLACES), json_like | st.sampled_from(["u8", "bytes", [], {}, "T", "Pair", {"vec": "u8"}]))
def test_no_change_to_an_idl_raises_anything_but_our_own_errors(
    place: tuple[str, tuple[str | int, ...]], replacement: object
) -> None:
    """Any part of an IDL replaced by anything is read, or refused with one sentence."""
    name, path = place
    document = copy.deepcopy(DOCUMENTS[name])
    change_at(path, replacement)(document)
    try:
        load(document)
    except CapstanError as error:
        assert "\n" not in str(error)  # noqa: PT017 - both outcomes are right, and one has a condition
