"""Many transactions' logs at once say exactly what each says by itself."""

import base64
from collections.abc import Sequence

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from solders.pubkey import Pubkey

from indexer.chain.log_columns import UNKNOWN, LogColumns, scan_log_columns
from indexer.chain.logs import scan_logs

A, B, C = (Pubkey(bytes([n]) * 32) for n in (1, 2, 3))
OURS = [bytes(A), bytes(B)]
KEYS = [A, B, C, Pubkey(bytes(32))]


def data(*payloads: bytes) -> str:
    return "Program data: " + " ".join(base64.b64encode(payload).decode() for payload in payloads)


def said(found: LogColumns) -> list[object]:
    """Return everything that was found, as `expected` has it."""
    columns = (found.rows, found.programs, found.ordinals, found.payloads.to_pylist(), found.fields)
    return [
        [tuple(map(_plain, line)) for line in zip(*columns, strict=True)],
        [tuple(bad) for bad in found.bad],
        found.truncated.tolist(),
        found.missing.tolist(),
    ]


def _plain(value: object) -> object:
    return value if isinstance(value, bytes) else int(value)  # type: ignore[call-overload] # numpy's integers


def expected(logs: Sequence[Sequence[str] | None]) -> list[object]:
    """Return what the loop finds."""
    places = {OURS[0]: 0, OURS[1]: 1, None: UNKNOWN}
    lines, bad, truncated, missing = [], [], [], []
    for row, entries in enumerate(logs):
        scan = scan_logs(entries, programs=set(OURS))
        lines += [
            (row, places[line.program_id], line.ordinal, line.payloads[0] if line.payloads else b"", len(line.payloads))
            for line in scan.data
        ]
        bad += [(row, places[line.program_id], line.ordinal, line.reason) for line in scan.bad]
        truncated.append(scan.truncated)
        missing.append(scan.missing)
    return [lines, bad, truncated, missing]


def call(draw: st.DrawFn, depth: int, lines: list[str]) -> None:
    """Append what a call prints, with what the runtime says around it."""
    key = draw(st.sampled_from(KEYS))
    lines.append(f"Program {key} invoke [{depth}]")
    for action in draw(st.lists(st.sampled_from(["data", "data", "log", "call", "nasty"]), max_size=4)):
        if action == "data":
            lines.append(draw(data_lines))
        elif action == "log":
            lines.append("Program log: " + draw(nasty))
        elif action == "nasty":
            lines.append(draw(nasty))
        elif depth < 12:
            call(draw, depth + 1, lines)
    if draw(st.booleans()):
        lines.append(f"Program {key} consumed {draw(st.integers(0, 10**6))} of 200000 compute units")
    if draw(st.integers(0, 19)):
        end = draw(st.sampled_from(["success", "success", "failed: custom program error: 0x1771", "failed", "failed "]))
        lines.append(f"Program {key} {end}")


names = st.one_of(
    st.sampled_from([*map(str, KEYS), "", "x", "data:", "log:", "return:", "failed", "é" * 30, "1" * 44, "a" * 70]),
    st.text(max_size=6),
)
ends = st.one_of(
    st.sampled_from(
        ["success", "failed", "failed: x", "failed to complete: Access violation", "successful", "success\n",
         "invoke [", "invoke [1", "invoke [1] ", "consumed 3 of 200000 compute units",
         "consumed 4645 of 200000 compute units!" * 2,
         "failed: " + "why " * 20, "success " * 10, "invoke [1]" * 8, ""]
    ),
    st.integers(-2, 120).map("invoke [{}]".format),
    st.text(max_size=8),
)  # fmt: skip
data_lines = st.one_of(
    st.binary(max_size=40).map(data),
    st.binary(max_size=40).map(data),
    st.lists(st.binary(max_size=9), max_size=3).map(lambda payloads: data(*payloads)),
    st.sampled_from(
        ["Program data:", "Program data: ", "Program data:YWJj", "Program data:  YWJj", "Program data: YWJj ",
         "Program data: YQ=", "Program data: ====", "Program data: Y===", "Program data: YR==",
         "Program data: YQ==YWJj",
         "Program data: YW\nJ", "Program data: é123", "Program data: \u00a0YWJj", "Program data: YWI_", "Program data"]
    ),
)  # fmt: skip
nasty = st.one_of(
    st.text(max_size=30),
    st.builds("Program {} {}".format, names, ends),
    st.builds("{} {}".format, names, ends),
    data_lines,
    data_lines.map(lambda line: line[1:]),
    data_lines.map(lambda line: "Program log: hi\n" + line),
    st.sampled_from(
        ["", "P", "Prog", "Program", "Program ", "Program l", "Program d", "Log trun", "Log truncated ", "\0",
         "XXXXram data: YWJj", "XXXXram log: x", "XXXXtruncated", "Program lo", "Program data", "\ud800",
         "Program log: invoke [1]", "Program a b invoke [1]", "Program a invoke [1]", "Program a invoke [01]",
         "a invoke [1]", "voke [1]", "Program data: voke [1]"]
    ),
)  # fmt: skip


@st.composite
def call_trees(draw: st.DrawFn) -> list[str]:
    lines: list[str] = []
    for _ in range(draw(st.integers(1, 3))):
        call(draw, 1, lines)
    if draw(st.integers(0, 5)) == 0:
        lines.insert(draw(st.integers(0, len(lines))), "Log truncated")
    return lines


transactions = st.one_of(st.none(), call_trees(), call_trees(), st.lists(st.one_of(nasty, data_lines), max_size=12))


@settings(max_examples=400, deadline=None)
@given(st.lists(transactions, max_size=6))
def test_a_batch_says_what_each_transaction_says(logs: list[list[str] | None]) -> None:
    """Call trees, broken ones, look-alikes, cuts, anything in between: owner, number, bytes and complaints agree."""
    assert said(scan_log_columns(logs, OURS)) == expected(logs)


def tree(*inside: str, key: Pubkey = A) -> list[str]:
    return [f"Program {key} invoke [1]", *inside, f"Program {key} success"]


@pytest.mark.parametrize("kind", [pa.list_(pa.string()), pa.large_list(pa.large_string()), pa.list_(pa.string_view())])
def test_logs_may_come_in_any_arrow_list_whole_sliced_or_in_chunks(kind: pa.DataType) -> None:
    """The types that readers of other formats produce; a slice refers to its own part only."""
    logs = [tree(data(b"a")), None, tree(data(b"b" * 20), data(b"c")), [], tree("Program log: x", data(b"d"))]
    array = pa.array(logs, kind)
    assert said(scan_log_columns(array, OURS)) == expected(logs)
    assert said(scan_log_columns(array[2:], OURS)) == expected(logs[2:])
    assert said(scan_log_columns(pa.chunked_array([array[:1], array[1:]]), OURS)) == expected(logs)
    assert said(scan_log_columns(array[:0], OURS)) == [[], [], [], []]


def test_nulls_that_hide_lines_are_missing_logs() -> None:
    """Arrow allows text under a null; it is nobody's."""
    values = pa.array(tree(data(b"a")) + tree(data(b"b")))
    array = pa.ListArray.from_arrays([0, 3, 6], values, mask=pa.array([True, False]))
    assert said(scan_log_columns(array, OURS)) == expected([None, tree(data(b"b"))])


def test_one_odd_transaction_does_not_touch_its_neighbours() -> None:
    """A stack that has to be mended, and text that has no UTF-8, each between regular transactions."""
    wrong_depth = [f"Program {A} invoke [3]", data(b"x"), f"Program {A} success", data(b"y")]
    logs = [tree(data(b"a")), wrong_depth, tree(data(b"b")), tree("Program log: \ud800", data(b"c")), tree(data(b"d"))]
    found = scan_log_columns(logs, OURS)
    assert said(found) == expected(logs)
    assert found.rows.tolist() == [0, 1, 1, 2, 3, 4]


def test_lines_of_other_programs_are_counted_and_not_read() -> None:
    """Not even complained about."""
    logs = [tree("Program data: !", key=C) + tree(data(b"a"))]
    found = scan_log_columns(logs, OURS)
    assert (found.ordinals.tolist(), found.payloads.to_pylist(), found.bad) == ([1], [b"a"], ())


def test_more_transactions_than_are_looked_at_together() -> None:
    """Rows are counted on, whatever lies where one slice ends and the next begins, in lists and in arrays."""
    some = [
        tree(data(b"a")),
        None,
        [f"Program {A} invoke [3]", data(b"x"), f"Program {A} success", data(b"y")],
        tree("Program data: !"),
        [*tree(data(b"b"), data(b"c")), "Log truncated", data(b"d")],
        tree("Program log: x"),
        [],
    ]
    logs = some * 3000
    wanted = expected(logs)
    assert said(scan_log_columns(logs, OURS)) == wanted
    array = pa.array(logs, pa.list_(pa.string()))
    assert said(scan_log_columns(array, OURS)) == wanted
    assert said(scan_log_columns(pa.chunked_array([array[:9001], array[9001:]]), OURS)) == wanted


def test_an_outermost_call_forgets_what_was_left_open() -> None:
    """Whatever came before it, and only if it is one."""
    unclosed = [f"Program {A} invoke [1]", f"Program {C} invoke [2]", f"Program {B} invoke [1]", data(b"b")]
    not_opened = [f"Program {A} invoke [1]", f"Program {B} is no invoke [1]", data(b"a")]
    found = scan_log_columns([unclosed, not_opened], OURS)
    assert said(found) == expected([unclosed, not_opened])
    assert found.programs.tolist() == [1, 0]
