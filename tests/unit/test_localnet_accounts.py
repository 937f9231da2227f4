"""Versions of account state against a plain model, and the rent rule."""

from hypothesis import given
from hypothesis import strategies as st

from localnet.accounts import Accounts, AccountState, State, breaks_rent, rent_exempt_minimum

OWNERS = (b"a" * 32, b"b" * 32)
ADDRESSES = tuple(bytes([i]) * 32 for i in range(3))
STATES: st.SearchStrategy[State] = st.one_of(
    st.none(), st.builds(AccountState, st.integers(1, 5), st.just(b""), st.sampled_from(OWNERS))
)
WRITES = st.lists(st.tuples(st.sampled_from(ADDRESSES), st.integers(0, 1), STATES), max_size=40)


def written(writes: list[tuple[bytes, int, State]]) -> tuple[Accounts, list[dict[bytes, State]]]:
    """Play writes; return the store and the full state at the end of each slot."""
    accounts = Accounts()
    slots: list[dict[bytes, State]] = []
    state_now: dict[bytes, State] = dict.fromkeys(ADDRESSES)
    for address, advance, state in writes:
        slots.extend(dict(state_now) for _ in range(advance))
        accounts.write(address, len(slots), state, before=state_now[address])
        state_now[address] = state
    return accounts, [*slots, state_now]


@given(WRITES)
def test_every_slot_keeps_its_own_state(writes: list[tuple[bytes, int, State]]) -> None:
    """Reading at a slot gives what was true at its end, by address and by owner."""
    accounts, slots = written(writes)
    for slot, expected in enumerate(slots):
        for address in ADDRESSES:
            assert accounts.at(address, slot) == expected[address]
        for owner in OWNERS:
            owned = {
                address: state for address, state in expected.items() if state is not None and state.owner == owner
            }
            assert dict(accounts.owned_by(owner, slot)) == owned


@given(WRITES, st.integers(0, 20))
def test_forgetting_spares_what_is_still_shown(writes: list[tuple[bytes, int, State]], final: int) -> None:
    """After a slot is final, it and every later one read as before."""
    accounts, slots = written(writes)
    final = min(final, len(slots) - 1)
    accounts.forget_before(final, ADDRESSES)
    for slot in range(final, len(slots)):
        for address in ADDRESSES:
            assert accounts.at(address, slot) == slots[slot][address]
        for owner in OWNERS:
            assert dict(accounts.owned_by(owner, slot)) == {
                address: state for address, state in slots[slot].items() if state is not None and state.owner == owner
            }


@given(WRITES, st.integers(1, 20))
def test_undoing_gives_back_what_was(writes: list[tuple[bytes, int, State]], dropped: int) -> None:
    """Taking slots back leaves the store as if they had never been."""
    accounts, slots = written(writes)
    dropped = min(dropped, len(slots))
    restored = accounts.undo_from(dropped, ADDRESSES)
    expected = slots[dropped - 1]
    assert restored == expected
    for address in ADDRESSES:
        assert accounts.newest(address) == expected[address]
    for owner in OWNERS:
        assert {address for address, _ in accounts.owned_by(owner, len(slots))} == {
            address for address, state in expected.items() if state is not None and state.owner == owner
        }


def test_rent_transitions() -> None:
    """Exempt or gone is fine; short of rent only who was so before, no larger and no richer."""
    exempt = AccountState(rent_exempt_minimum(10), b"x" * 10, OWNERS[0])
    short = AccountState(100, b"x" * 10, OWNERS[0])
    assert not breaks_rent(None, exempt)
    assert not breaks_rent(exempt, None)
    assert breaks_rent(None, short)
    assert breaks_rent(exempt, short)
    assert not breaks_rent(short, short._replace(lamports=99))
    assert breaks_rent(short, short._replace(lamports=101))
    assert breaks_rent(short, short._replace(data=b"x" * 9))
    assert rent_exempt_minimum(0) == 890_880
