"""What an upgrade changes, and whether older data stays readable: said by the comparison, borne out by decoding."""

import json
from typing import Any

import pytest

from indexer.chain.codec import DecodeError
from indexer.chain.idl import Idl, load_idl
from indexer.chain.idl_diff import Change, diff_idls, is_readable
from indexer.chain.program import Program
from indexer.idls import home_programs

ADDRESS = "11111111111111111111111111111111"
ORDER = {"defined": {"name": "Order"}}


def fields(*pairs: tuple[str, Any]) -> list[dict[str, Any]]:
    return [{"name": name, "type": type_} for name, type_ in pairs]


def struct(name: str, *pairs: tuple[str, Any], **more: Any) -> dict[str, Any]:
    return {"name": name, "type": {"kind": "struct", "fields": fields(*pairs)}, **more}


def enum(name: str, *variants: Any) -> dict[str, Any]:
    shaped = [{"name": v} if isinstance(v, str) else v for v in variants]
    return {"name": name, "type": {"kind": "enum", "variants": shaped}}


def idl(*types: dict[str, Any], instructions: tuple[Any, ...] = (), errors: tuple[Any, ...] = (), **more: Any) -> Idl:
    """Return an IDL whose type "Event" is an event and "Account" an account, where it has them."""
    names = {entry["name"] for entry in types}
    document = {
        "address": ADDRESS,
        "metadata": {"name": "p", "version": "1", "spec": "0.1.0"},
        "instructions": list(instructions),
        "events": [{"name": "Event", "discriminator": [1] * 8}] if "Event" in names else [],
        "accounts": [{"name": "Account", "discriminator": [2] * 8}] if "Account" in names else [],
        "types": list(types),
        "errors": list(errors),
        **more,
    }
    return load_idl(json.dumps(document), source="test.json")


def told(changes: list[Change]) -> list[tuple[str, str, bool]]:
    """Return the changes of events, accounts and instructions without their sentences."""
    return [(c.kind, c.path, c.readable) for c in changes if not c.path.startswith("types.")]


def event(*pairs: tuple[str, Any], types: tuple[Any, ...] = ()) -> Idl:
    return idl(struct("Event", *pairs), *types)


def account(*pairs: tuple[str, Any], types: tuple[Any, ...] = (), **more: Any) -> Idl:
    return idl(struct("Account", *pairs, **more), *types)


AB = (("a", "u64"), ("b", "u64"))

EVENT_CASES: dict[str, tuple[Idl, Idl, list[tuple[str, str, bool]]]] = {
    "nothing": (event(*AB), event(*AB), []),
    "renamed": (event(*AB), event(("a", "u64"), ("c", "u64")), [("field_renamed", "events.Event.b", True)]),
    "appended": (event(*AB), event(*AB, ("c", "u8")), [("field_appended", "events.Event.c", False)]),
    "appended without bytes": (
        event(*AB),
        event(*AB, ("c", {"array": ["u8", 0]})),
        [("field_appended", "events.Event.c", True)],
    ),
    "appended option": (event(*AB), event(*AB, ("c", {"option": "u8"})), [("field_appended", "events.Event.c", False)]),
    "removed at the end": (event(*AB), event(AB[0]), [("field_removed", "events.Event.b", False)]),
    "inserted": (event(*AB), event(AB[0], ("c", "u8"), AB[1]), [("field_inserted", "events.Event.c", False)]),
    "removed before another": (event(*AB), event(AB[1]), [("field_removed", "events.Event.a", False)]),
    "swapped": (
        event(*AB),
        event(AB[1], AB[0]),
        [("field_moved", "events.Event.a", False), ("field_moved", "events.Event.b", False)],
    ),
    "another sign": (event(*AB), event(AB[0], ("b", "i64")), [("type_changed", "events.Event.b", False)]),
    "bytes as vec": (event(("a", "bytes")), event(("a", {"vec": "u8"})), [("type_changed", "events.Event.a", True)]),
    "string from bytes": (event(("a", "bytes")), event(("a", "string")), [("type_changed", "events.Event.a", False)]),
    "pubkey as array": (
        event(("a", "pubkey")),
        event(("a", {"array": ["u8", 32]})),
        [("bytes_recut", "events.Event.a", True)],
    ),
    "array length": (
        event(("a", {"array": ["u16", 4]})),
        event(("a", {"array": ["u16", 5]})),
        [("type_changed", "events.Event.a", False)],
    ),
    "struct renamed": (
        event(("o", ORDER), types=(struct("Order", *AB),)),
        event(("o", {"defined": {"name": "Deal"}}), types=(struct("Deal", *AB),)),
        [],
    ),
    "field of a struct renamed": (
        event(("o", ORDER), types=(struct("Order", *AB),)),
        event(("deal", ORDER), types=(struct("Order", *AB),)),
        [("field_renamed", "events.Event.o", True)],
    ),
    "wrapped in a struct": (
        event(("a", "u64")),
        event(("a", ORDER), types=(struct("Order", ("value", "u64")),)),
        [("field_renamed", "events.Event.a", True)],
    ),
    "deep inside": (
        event(("o", {"vec": {"option": ORDER}}), types=(struct("Order", *AB),)),
        event(("o", {"vec": {"option": ORDER}}), types=(struct("Order", *AB, ("c", "u8")),)),
        [("field_appended", "events.Event.o.c", False)],
    ),
    "generic argument": (
        event(
            ("o", {"defined": {"name": "Box", "generics": [{"kind": "type", "type": "u32"}]}}),
            types=(struct("Box", ("v", {"generic": "T"}), generics=[{"kind": "type", "name": "T"}]),),
        ),
        event(
            ("o", {"defined": {"name": "Box", "generics": [{"kind": "type", "type": "u64"}]}}),
            types=(struct("Box", ("v", {"generic": "T"}), generics=[{"kind": "type", "name": "T"}]),),
        ),
        [("type_changed", "events.Event.o.v", False)],
    ),
    "variant appended": (
        event(("s", ORDER), types=(enum("Order", "A", "B"),)),
        event(("s", ORDER), types=(enum("Order", "A", "B", "C"),)),
        [("variant_appended", "events.Event.s.C", True)],
    ),
    "variant renamed": (
        event(("s", ORDER), types=(enum("Order", "A", "B"),)),
        event(("s", ORDER), types=(enum("Order", "A", "Z"),)),
        [("variant_renamed", "events.Event.s.B", True)],
    ),
    "variants swapped": (
        event(("s", ORDER), types=(enum("Order", "A", "B"),)),
        event(("s", ORDER), types=(enum("Order", "B", "A"),)),
        [("variant_moved", "events.Event.s.A", False), ("variant_moved", "events.Event.s.B", False)],
    ),
    "variant removed": (
        event(("s", ORDER), types=(enum("Order", "A", "B"),)),
        event(("s", ORDER), types=(enum("Order", "A"),)),
        [("variant_removed", "events.Event.s.B", False)],
    ),
    "variant given fields": (
        event(("s", ORDER), types=(enum("Order", "A"),)),
        event(("s", ORDER), types=(enum("Order", {"name": "A", "fields": ["u8"]}),)),
        [("field_appended", "events.Event.s.A.0", False)],
    ),
}

ACCOUNT_CASES: dict[str, tuple[Idl, Idl, list[tuple[str, str, bool]]]] = {
    "appended": (account(*AB), account(*AB, ("c", "u8")), [("field_appended", "accounts.Account.c", False)]),
    "removed at the end": (account(*AB), account(AB[0]), [("field_removed", "accounts.Account.b", True)]),
    "grown into reserved bytes": (
        account(("a", "u64"), ("reserved", {"array": ["u8", 32]})),
        account(("a", "u64"), ("b", "u64"), ("reserved", {"array": ["u8", 24]})),
        [("bytes_recut", "accounts.Account.reserved", True)],
    ),
    "a flag in reserved bytes": (
        account(("a", "u64"), ("reserved", {"array": ["u8", 2]})),
        account(("a", "u64"), ("b", "bool"), ("reserved", {"array": ["u8", 1]})),
        [("field_inserted", "accounts.Account.b", False), ("type_changed", "accounts.Account.reserved", False)],
    ),
    "a hash that moved into other bytes": (
        account(("hash", {"array": ["u8", 8]}), ("z", "u64")),
        account(("x", "u64"), ("hash", {"array": ["u8", 8]})),
        [("field_inserted", "accounts.Account.x", False), ("field_removed", "accounts.Account.z", True)],
    ),
    "packed": (
        account(("a", "u8"), ("b", "u64"), serialization="bytemuck", repr={"kind": "c"}),
        account(("a", "u8"), ("b", "u64"), serialization="bytemuck", repr={"kind": "c", "packed": True}),
        [("size_changed", "accounts.Account", False)],
    ),
    "padding made a field": (
        account(("a", "u8"), ("b", "u64"), serialization="bytemuck", repr={"kind": "c"}),
        account(("a", "u8"), ("pad", {"array": ["u8", 7]}), ("b", "u64"), serialization="bytemuck", repr={"kind": "c"}),
        [("bytes_recut", "accounts.Account.pad", True)],
    ),
    "borsh made bytemuck without padding": (
        account(("a", "u64"), ("b", "u32"), ("c", "u32")),
        account(("a", "u64"), ("b", "u32"), ("c", "u32"), serialization="bytemuck", repr={"kind": "c"}),
        [],
    ),
}


@pytest.mark.parametrize("case", EVENT_CASES)
def test_events(case: str) -> None:
    """An event must be read to its last byte."""
    old, new, expected = EVENT_CASES[case]
    changes = diff_idls(old, new)
    assert told(changes) == expected
    assert is_readable(changes) == all(readable for _, _, readable in expected)


@pytest.mark.parametrize("case", ACCOUNT_CASES)
def test_accounts(case: str) -> None:
    """Of an account more bytes than the IDL says are normal, fewer are not."""
    old, new, expected = ACCOUNT_CASES[case]
    assert told(diff_idls(old, new)) == expected


@pytest.mark.parametrize("case", [*EVENT_CASES.values(), *ACCOUNT_CASES.values()])
def test_what_is_called_readable_is_read(case: tuple[Idl, Idl, list[tuple[str, str, bool]]]) -> None:
    """Data written under the older IDL is decoded by the newer one, whole, wherever that was promised."""
    old, new, expected = case
    writer, reader = Program.from_idl(old), Program.from_idl(new)
    if not all(readable for _, _, readable in expected):
        return
    for entry in old.events:
        decoded = reader.decode_event(zeros(writer, entry.discriminator, "decode_event"))
        assert decoded.trailing == 0
    for kept in old.accounts:
        reader.decode_account(zeros(writer, kept.discriminator, "decode_account"))


def zeros(program: Program, discriminator: bytes, decode: str) -> bytes:
    """Return the shortest payload that begins with `discriminator` and has only zeros behind it."""
    for length in range(200):
        try:
            getattr(program, decode)(discriminator + bytes(length))
        except DecodeError:
            continue
        return discriminator + bytes(length)
    raise AssertionError("no payload of zeros is valid")


def test_a_recursive_type_ends() -> None:
    """Also where the change is in the type that holds itself."""
    node = {"defined": {"name": "Node"}}
    old = event(("n", node), types=(struct("Node", ("v", "u8"), ("next", {"vec": node})),))
    new = event(("n", node), types=(struct("Node", ("v", "u16"), ("next", {"vec": node})),))
    assert not diff_idls(old, old)
    again = event(("n", node), types=(struct("Node", ("v", "u8"), ("next", {"vec": node})),))
    assert diff_idls(old, again) == []
    assert ("type_changed", "events.Event.n.v", False) in told(diff_idls(old, new))


def test_a_type_that_doubles_with_each_level_is_not_compared() -> None:
    """Forty structs of two of the next are a trillion fields; that is said, and nobody waits for it."""

    def doubling(last: str) -> Idl:
        levels = [
            struct(f"L{n}", ("a", {"defined": {"name": f"L{n + 1}"}}), ("b", {"defined": {"name": f"L{n + 1}"}}))
            for n in range(40)
        ]
        return event(("x", {"defined": {"name": "L0"}}), types=(*levels, struct("L40", ("v", last))))

    assert told(diff_idls(doubling("u8"), doubling("u16"))) == [("not_compared", "events.Event", False)]


def test_entries_come_go_and_change_their_discriminators() -> None:
    """A rename keeps its data where the discriminator stays, and loses it where it changes."""
    types = (struct("Event", *AB), struct("Other", *AB))
    both = [{"name": "Event", "discriminator": [1] * 8}, {"name": "Other", "discriminator": [3] * 8}]
    old = idl(*types)
    assert told(diff_idls(old, idl(*types, events=both))) == [("event_added", "events.Other", True)]
    assert told(diff_idls(idl(*types, events=both), old)) == [("event_removed", "events.Other", False)]
    renamed = idl(*types, events=[{"name": "Other", "discriminator": [1] * 8}])
    assert told(diff_idls(old, renamed)) == [("event_renamed", "events.Event", True)]
    changed = idl(*types, events=[{"name": "Event", "discriminator": [9] * 8}])
    assert told(diff_idls(old, changed)) == [("discriminator_changed", "events.Event", False)]
    rival = idl(*types, events=[both[0], {"name": "Other", "discriminator": [1] * 4}])
    assert ("ambiguous_discriminator", "events.Event", False) in told(diff_idls(old, rival))


def test_instructions() -> None:
    """Arguments are bytes, accounts are places: both must stay where they are, and lists of accounts may grow."""

    def calling(args: list[Any], accounts: list[Any]) -> Idl:
        return idl(instructions=({"name": "go", "discriminator": [7], "args": args, "accounts": accounts},))

    owner, mint = {"name": "owner"}, {"name": "mint", "writable": True}
    old = calling(fields(("amount", "u64")), [owner, mint])
    longer = calling(fields(("amount", "u64"), ("limit", "u64")), [owner, mint, {"name": "vault"}])
    assert told(diff_idls(old, longer)) == [
        ("field_appended", "instructions.go.args.limit", False),
        ("account_appended", "instructions.go.accounts.vault", True),
    ]
    swapped = calling(fields(("amount", "u64")), [mint, owner])
    assert not is_readable(diff_idls(old, swapped), "instructions.go")
    eased = calling(fields(("amount", "u64")), [{"name": "payer"}, {"name": "mint", "optional": True}])
    assert told(diff_idls(old, eased)) == [
        ("account_renamed", "instructions.go.accounts.owner", True),
        ("account_flags_changed", "instructions.go.accounts.mint", True),
    ]


def test_heads_types_and_errors_are_told_and_harm_nothing() -> None:
    """They describe; the bytes are at events, accounts and instructions."""
    old = idl(struct("Order", *AB), errors=({"code": 6000, "name": "A"}, {"code": 6001, "name": "B"}))
    new = idl(
        struct("Deal", *AB),
        errors=({"code": 6000, "name": "A", "msg": "no"}, {"code": 6002, "name": "C"}),
        metadata={"name": "q", "version": "1", "spec": "0.1.0"},
        address="SysvarC1ock11111111111111111111111111111111",
    )
    changes = diff_idls(old, new)
    assert [c.kind for c in changes] == [
        *("name_changed", "address_changed", "type_removed", "type_added"),
        *("error_changed", "error_removed", "error_added"),
    ]
    assert is_readable(changes)
    assert all(c.detail for c in changes)


def test_the_home_programs_are_like_themselves() -> None:
    """Read twice, so that no two types are the same object."""
    for one, other in zip(home_programs().values(), home_programs().values(), strict=True):
        assert diff_idls(one.idl, other.idl) == []


CLOCK = "SysvarC1ock11111111111111111111111111111111"


@pytest.mark.parametrize(
    ("was", "now", "sentence"),
    [
        (None, ADDRESS, f"was not named and is {ADDRESS}"),
        (ADDRESS, None, f"was {ADDRESS} and is not named any more"),
        (ADDRESS, CLOCK, f"was {ADDRESS} and is {CLOCK}"),
    ],
)
def test_an_address_that_is_not_named_is_said_in_words(was: str | None, now: str | None, sentence: str) -> None:
    """An IDL need not name the addresses of a program or of an instruction's accounts."""

    def naming(address: str | None) -> Idl:
        account_ = {"name": "clock"} if address is None else {"name": "clock", "address": address}
        go = {"name": "go", "discriminator": [7], "args": [], "accounts": [account_]}
        return idl(instructions=(go,), address=address)

    changes = {change.kind: change.detail for change in diff_idls(naming(was), naming(now))}
    assert changes == {"address_changed": sentence, "account_address_changed": sentence}
