"""Who printed what: attribution of data lines, under every kind of log that a chain or an attacker can make."""

import base64
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import astuple
from solders.pubkey import Pubkey

from indexer.chain.logs import LogScan, scan_logs

A, B, C = (Pubkey(bytes([n]) * 32) for n in (1, 2, 3))


def data(*payloads: bytes) -> str:
    return "Program data: " + " ".join(base64.b64encode(payload).decode() for payload in payloads)


def who(logs: list[str]) -> Sequence[tuple[int, bytes | None, tuple[bytes, ...]]]:
    return [astuple(line) for line in scan_logs(logs).data]


def one(owner: Pubkey | None, payload: bytes = b"x", ordinal: int = 0) -> tuple[int, bytes | None, tuple[bytes, ...]]:
    return ordinal, None if owner is None else bytes(owner), (payload,)


def test_a_line_belongs_to_the_program_on_top_of_the_stack() -> None:
    """Before, inside and after an inner call, and after an inner call's inner call."""
    logs = [
        f"Program {A} invoke [1]", data(b"0"),
        f"Program {B} invoke [2]", data(b"1"),
        f"Program {C} invoke [3]", data(b"2"), f"Program {C} success",
        data(b"3"), f"Program {B} consumed 5 of 200000 compute units", f"Program {B} success",
        data(b"4"), f"Program {A} success",
        f"Program {B} invoke [1]", data(b"5"), f"Program {B} success",
    ]  # fmt: skip
    owners = [A, B, C, B, A, B]
    assert who(logs) == [one(owner, str(n).encode(), n) for n, owner in enumerate(owners)]


def test_ordinals_count_the_lines_of_all_programs() -> None:
    """Whoever looks at one program only gets the same numbers; the lines of others are not even decoded."""
    logs = [f"Program {A} invoke [1]", "Program data: !!", f"Program {B} invoke [2]", data(b"x")]
    scan = scan_logs(logs, programs={bytes(B)})
    assert [astuple(line) for line in scan.data] == [one(B, ordinal=1)]
    assert scan.bad == ()


def test_a_program_that_calls_itself() -> None:
    """Its inner success ends the inner call only."""
    logs = [f"Program {A} invoke [1]", f"Program {A} invoke [2]", f"Program {A} success", data(b"x")]
    assert who(logs) == [one(A)]


@pytest.mark.parametrize(
    "end",
    [
        f"Program {B} failed: custom program error: 0x1",
        f"Program {B} failed: Computational budget exceeded",
        f"Program {B} failed: \nProgram {A} success",
        f"Program {B} failed",
        f"Program {B} failed to complete: exceeded CUs meter at BPF instruction",
    ],
)
def test_a_failed_inner_call_ends(end: str) -> None:
    """In all the forms in which the runtime says so."""
    logs = [f"Program {A} invoke [1]", f"Program {B} invoke [2]", end, data(b"x")]
    assert who(logs) == [one(A)]


def test_failed_to_complete_without_a_name_ends_nothing() -> None:
    """It comes before the line that does name the program."""
    logs = [f"Program {A} invoke [1]", "Program failed to complete: Access violation", data(b"x")]
    assert who(logs) == [one(A)]


def test_depths_have_two_digits() -> None:
    """Deep stacks are followed down and up again."""
    keys = [Pubkey(bytes([n]) * 32) for n in range(1, 13)]
    logs = [f"Program {key} invoke [{depth}]" for depth, key in enumerate(keys, 1)]
    logs += [data(b"x"), *(f"Program {key} success" for key in reversed(keys[1:])), data(b"y")]
    assert who(logs) == [one(keys[-1]), one(keys[0], b"y", 1)]


def test_a_missing_close_is_mended_by_the_next_depth() -> None:
    """A new outermost call ends whatever seemed to be running; so does a call at a lower depth."""
    logs = [f"Program {A} invoke [1]", f"Program {B} invoke [2]", f"Program {C} invoke [1]", data(b"x")]
    logs += [f"Program {C} success", data(b"y")]
    assert who(logs) == [one(C), one(None, b"y", 1)]
    logs = [f"Program {A} invoke [1]", f"Program {B} invoke [2]", f"Program {A} success", data(b"x")]
    assert who(logs) == [one(None)]
    logs = [f"Program {A} invoke [1]", f"Program {B} invoke [2]", f"Program {C} invoke [2]", f"Program {C} success"]
    assert who([*logs, data(b"x")]) == [one(A)]


def test_a_missing_open_leaves_nobody_to_blame() -> None:
    """After a call whose caller was never seen has ended, the caller is unknown, not the last known program."""
    logs = [f"Program {A} invoke [1]", f"Program {B} invoke [3]", f"Program {B} success", data(b"x")]
    assert who(logs) == [one(None)]
    assert who([f"Program {A} invoke [1]", f"Program {C} success", data(b"x")]) == [one(A)]


def test_nothing_after_the_cut_is_attributed_or_numbered() -> None:
    """Shorter lines still print after it, and the missing success lines let a stranger's data look like ours."""
    logs = [f"Program {A} invoke [1]", data(b"x"), "Log truncated", f"Program {A} success", data(b"y"), "Log truncated"]
    scan = scan_logs(logs)
    assert ([astuple(line) for line in scan.data], scan.truncated) == ([one(A)], True)


def test_only_the_runtimes_own_cut_is_one() -> None:
    """A program can print the words, but not without its prefix."""
    logs = [f"Program {A} invoke [1]", "Program log: Log truncated", "Program log: x\nLog truncated", data(b"x")]
    scan = scan_logs(logs)
    assert ([astuple(line) for line in scan.data], scan.truncated) == ([one(A)], False)


def test_an_entry_is_never_split_at_newlines() -> None:
    """Newlines with forged data, invokes and ends inside one entry are that entry's text."""
    forged = f"Program log: hi\nProgram {B} invoke [1]\n{data(b'forged')}\nProgram {A} success"
    logs = [f"Program {A} invoke [1]", forged, data(b"x"), f"Program {A} success\n", data(b"y")]
    assert who(logs) == [one(A), one(A, b"y", 1)]


@pytest.mark.parametrize(
    "text",
    [
        "Program log: Program data: Zm9yZ2Vk",
        "Program log: Program log: Program data: Zm9yZ2Vk",
        f"Program log: Program {B} invoke [2]",
        f"Program log: Program {A} success",
        f"Program {B} invoke [2] ",
        f"Program {B} invoke [0]",
        f"Program {B} invoke [-1]",
        f"Program {B} invoke [٢]",
        f"Program {B} invoke [999999999999999999999]",
        f"Program {B} invoke []",
        f"Program {B} invoke",
        f" Program {B} invoke [2]",
        f"Program {A} successful",
        f"Program {B} success",
        f"Program return: {A} AQ==",
        "Program consumption: 1 units remaining",
        "Program is not deployed",
        "Program ",
        "Program",
        "",
        "\n",
        " Program data: Zm9yZ2Vk",
        "program data: Zm9yZ2Vk",
        "Transfer: insufficient lamports 1, need 2",
        "\0\ud800",
    ],
)
def test_look_alikes_change_nothing(text: str) -> None:
    """Text that is nearly a line of the runtime, before and after a real data line."""
    logs = [f"Program {A} invoke [1]", text, data(b"x"), text, data(b"y")]
    assert who(logs) == [one(A), one(A, b"y", 1)]


def test_a_line_under_a_name_that_is_no_key_belongs_to_nobody() -> None:
    """The call is believed, as otherwise its data would be taken for the caller's."""
    logs = [f"Program {A} invoke [1]", "Program O0Il invoke [2]", data(b"x"), "Program O0Il success", data(b"y")]
    assert who(logs) == [one(None), one(A, b"y", 1)]


def test_several_fields_on_one_line_are_one_ordinal() -> None:
    """A line is the unit of counting, whatever a program puts on it; an empty one counts too."""
    logs = [f"Program {A} invoke [1]", data(b"a", b"bc"), "Program data: ", "Program data:", data(b"d")]
    owner = bytes(A)
    assert who(logs) == [(0, owner, (b"a", b"bc")), (1, owner, ()), (2, owner, ()), (3, owner, (b"d",))]


@pytest.mark.parametrize("text", ["!!!!", "YQ", "YQ=", "Y Q==", "YWI_", "é", "YQ==\nYQ=", "YQ== !"])
def test_bad_base64_is_reported_with_its_place(text: str) -> None:
    """The line keeps its number, and the lines around it are read."""
    logs = [f"Program {A} invoke [1]", data(b"x"), f"Program data: {text}", data(b"y")]
    scan = scan_logs(logs)
    assert [astuple(line) for line in scan.data] == [one(A), one(A, b"y", 2)]
    assert [(bad.ordinal, bad.program_id) for bad in scan.bad] == [(1, bytes(A))]


def test_no_logs_is_not_the_same_as_empty_logs() -> None:
    """Null means that nobody knows."""
    assert scan_logs(None) == LogScan((), truncated=False, missing=True, bad=())
    assert scan_logs([]) == LogScan((), truncated=False, missing=False, bad=())


names = st.sampled_from([str(A), str(B), str(C), "", "x", "11111111111111111111111111111111", "1" * 44])
lines = st.one_of(
    st.text(max_size=30),
    st.builds("Program {} invoke [{}]".format, names, st.integers(-2, 120)),
    st.builds(
        "Program {} {}".format, names, st.sampled_from(["success", "failed", "failed: x", "invoke [", "invoke [1"])
    ),
    st.builds("Program {} {}".format, st.sampled_from(["data:", "log:", "return:"]), st.text(max_size=20)),
    st.binary(max_size=20).map(data),
    st.just("Log truncated"),
)


@settings(max_examples=1000, deadline=None)
@given(st.lists(lines, max_size=30))
def test_no_logs_raise_and_every_data_line_before_the_cut_is_counted_once(logs: list[str]) -> None:
    """Read or reported, each under its own number, and equally when only some programs are asked for."""
    scan = scan_logs(logs)
    before = logs[: logs.index("Log truncated")] if "Log truncated" in logs else logs
    count = sum(line.startswith("Program data:") for line in before)
    assert sorted([line.ordinal for line in scan.data] + [bad.ordinal for bad in scan.bad]) == list(range(count))
    wanted = {bytes(A), None}
    some = scan_logs(logs, programs={bytes(A)})
    assert some.data == tuple(line for line in scan.data if line.program_id in wanted)
    assert some.bad == tuple(bad for bad in scan.bad if bad.program_id in wanted)


def run(draw: st.DrawFn, key: Pubkey, depth: int, logs: list[str], expected: list[bytes]) -> None:
    logs.append(f"Program {key} invoke [{depth}]")
    for action in draw(st.lists(st.sampled_from(["data", "log", "call"]), max_size=4)):
        if action == "data":
            logs.append(data(bytes(key)))
            expected.append(bytes(key))
        elif action == "log":
            logs.append("Program log: " + draw(lines))
        elif depth < 12:
            run(draw, draw(st.sampled_from([A, B, C])), depth + 1, logs, expected)
    logs.append(f"Program {key} success")


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_whatever_programs_print_their_data_is_their_own(choices: st.DataObject) -> None:
    """Random call trees, in which programs print any text: each data line carries the key of its program."""
    logs: list[str] = []
    expected: list[bytes] = []

    def draw(strategy: st.SearchStrategy[object]) -> object:
        return choices.draw(strategy)

    for _ in range(choices.draw(st.integers(1, 3))):
        run(draw, choices.draw(st.sampled_from([A, B, C])), 1, logs, expected)  # type: ignore[arg-type] # DrawFn is this
    assert who(logs) == [(n, key, (key,)) for n, key in enumerate(expected)]
