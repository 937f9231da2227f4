"""`capstan decode`, `decode-tx` and `idl` as a person or a pipe uses them, in processes of their own."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from indexer.errors import DataError, SettingsError
from indexer.idls import __file__ as idls_file
from indexer.idls import home_programs
from tests.fixtures.scripted_node import Entry

CAPSTAN = [sys.executable, "-m", "capstan"]
IDLS = Path(__file__).parents[1] / "fixtures" / "idls"
VAULT_IDL = Path(idls_file).with_name("ephemeral_vault.json")
VAULT = next(program for program in home_programs().values() if program.name == "ephemeral_vault")
DEPOSIT = VAULT.encode_event("AutoDeposit", {"vault": bytes(32), "amount": 5, "total_deposited": 7}).hex()
LINE = json.dumps({"kind": "event", "hex": DEPOSIT}).encode() + b"\n"
ANSWER = b'{"name":"AutoDeposit","value":{"vault":"' + b"1" * 32 + b'","amount":"5","total_deposited":"7"}}\n'


def run(*arguments: str, given: bytes = b"", code: int = 0) -> tuple[bytes, str]:
    """Run a command to its end; return stdout and stderr."""
    done = subprocess.run([*CAPSTAN, *arguments], input=given, capture_output=True, timeout=120, check=False)
    said = done.stderr.decode()
    assert "Traceback" not in said
    assert done.returncode == code, said
    return done.stdout, said


def started(*arguments: str, **more: Any) -> subprocess.Popen[bytes]:
    """Start a command with its pipes open."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **more}
    return subprocess.Popen([*CAPSTAN, *arguments], **pipes)


def test_a_client_asks_line_by_line_and_stops_it() -> None:
    """Each answer comes before the next question; Ctrl-C is an ordinary, quiet end."""
    with started("decode", "--idl", str(VAULT_IDL)) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        for question, answer in ((LINE, ANSWER), (b"?\n", None), (LINE, ANSWER)):
            process.stdin.write(question)
            process.stdin.flush()
            line = process.stdout.readline()
            assert line == answer or (answer is None and b'"error"' in line)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 130
        assert process.stderr.read() == b""


def test_many_lines_of_any_length() -> None:
    """In order, one each; a line may be longer than what is read at once, and the last needs no end."""
    long = b'{"kind": "event", "hex": "' + b"00" * 400_000 + b'"}\n'
    out, said = run("decode", given=LINE * 20_000 + b"\n" + long + LINE.rstrip())
    lines = out.splitlines(keepends=True)
    assert lines[:20_000] == [ANSWER] * 20_000
    assert b"it is empty" in lines[20_000]
    assert b"an event with the discriminator" in lines[20_001]
    assert lines[20_002:] == [ANSWER]
    assert said == ""


def test_no_lines_no_answers() -> None:
    """An empty file is no error."""
    assert run("decode") == (b"", "")


@pytest.mark.parametrize("command", ["decode", "decode-tx"])
def test_a_reader_that_has_enough(command: str) -> None:
    """`| head -1` ends it without a word."""
    with started(command) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.write(LINE)
        process.stdin.flush()
        process.stdout.readline()
        process.stdout.close()
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline:
            try:
                process.stdin.write(LINE)
                process.stdin.flush()
            except BrokenPipeError:
                break
            time.sleep(0.01)
        assert process.wait(timeout=60) == 0
        assert process.stderr.read() == b""


def test_nowhere_to_write_and_nothing_to_read() -> None:
    """One sentence each."""
    with Path("/dev/full").open("wb") as full, started("decode", stdout=full) as process:
        _, said = process.communicate(LINE, timeout=60)
        assert (process.returncode, said[:37]) == (SettingsError.exit_code, b"capstan: stdout cannot be written (No")
    done = subprocess.run(f"{CAPSTAN[0]} -m capstan decode <&-", shell=True, capture_output=True, check=False)
    assert done.returncode == SettingsError.exit_code
    assert done.stderr.startswith(b"capstan: stdin or stdout is closed")


def test_a_transaction_through_the_command() -> None:
    """Bodies in, events out; a line that is none has its answer too."""
    given = json.dumps(Entry(3, 8, amount=9).body(VAULT)).encode() + b"\nnonsense\n"
    out, said = run("decode-tx", "--idl", str(VAULT_IDL), given=given)
    first, second = map(json.loads, out.splitlines())
    assert [e["name"] for e in first["events"]] == ["AutoDeposit"]
    assert [e["kind"] for e in second["errors"]] == ["bad_line"]
    assert said == ""


@pytest.mark.parametrize("command", ["decode", "decode-tx"])
def test_wrong_idls(command: str, tmp_path: Path) -> None:
    """A file that is not there, that is none, a program that is none: one sentence, before a line is read."""
    (tmp_path / "broken.json").write_text("{")
    for argument, code, sentence in (
        (str(tmp_path / "none.json"), SettingsError.exit_code, "cannot be read (No such file or directory)"),
        (str(tmp_path / "broken.json"), DataError.exit_code, "is not JSON"),
        (f"nobody={VAULT_IDL}", SettingsError.exit_code, "'nobody' in --idl"),
    ):
        out, said = run(command, "--idl", argument, given=LINE, code=code)
        assert out == b""
        assert said.startswith("capstan: ")
        assert sentence in said


def test_show() -> None:
    """Everything that is in the IDL, for a person and for a program."""
    out, said = run("idl", "show", str(IDLS / "registry.json"))
    document = json.loads((IDLS / "registry.json").read_text())
    table = out.decode()
    for part in ("instructions", "accounts", "events"):
        for entry in document[part]:
            assert entry["name"] in table
            assert bytes(entry["discriminator"]).hex() in table
    out, more = run("idl", "show", "--json", str(IDLS / "market_legacy.json"))
    shown = json.loads(out)
    assert (said, more) == ("", "")
    assert shown["format"] == "legacy"
    assert {"name": "open", "type": "bool"} in next(e for e in shown["events"] if e["name"] == "Opened")["fields"]


def test_show_does_not_let_an_idl_steer_the_terminal(tmp_path: Path) -> None:
    """An IDL is a stranger's text: markup and control characters come out as what they are."""
    document = json.loads(VAULT_IDL.read_text())
    document["errors"] = [{"code": 6000, "name": "[red]E[/red]", "msg": "\x1b[2J\u202eabc"}]
    (tmp_path / "idl.json").write_text(json.dumps(document))
    out, _ = run("idl", "show", str(tmp_path / "idl.json"))
    assert "[red]E[/red]" in out.decode()
    assert "\\x1b[2J\\u202eabc" in out.decode()


def test_diff(tmp_path: Path) -> None:
    """0 where older data stays readable, 1 where not; which is which is in the table and in the JSON."""
    document = json.loads(VAULT_IDL.read_text())
    (tmp_path / "a.json").write_text(json.dumps(document))
    deposit = next(t for t in document["types"] if t["name"] == "AutoDeposit")["type"]["fields"]
    deposit[1]["name"] = "lamports"
    (tmp_path / "b.json").write_text(json.dumps(document))
    deposit.append({"name": "fee", "type": "u64"})
    (tmp_path / "c.json").write_text(json.dumps(document))
    a, b, c = (str(tmp_path / f"{name}.json") for name in "abc")
    out, _ = run("idl", "diff", a, a)
    assert b"nothing differs" in out
    out, _ = run("idl", "diff", a, b)
    assert "events.AutoDeposit.amount" in out.decode()
    out, _ = run("idl", "diff", "--json", a, c, code=1)
    told = json.loads(out)
    assert told["readable"] is False
    assert {e["name"] for e in told["events"] if not e["readable"]} == {"AutoDeposit"}
    assert all(e["readable"] for e in told["accounts"])
    assert [c["kind"] for c in told["changes"]] == ["field_renamed", "field_appended"]


def test_idl_usage_errors() -> None:
    """A missing file, a missing argument, an unknown command: never a traceback."""
    _, said = run("idl", "show", "/nowhere/idl.json", code=SettingsError.exit_code)
    assert said == "capstan: the IDL /nowhere/idl.json cannot be read (No such file or directory): check the path\n"
    _, said = run("idl", "diff", str(VAULT_IDL), "/nowhere/idl.json", code=SettingsError.exit_code)
    assert said.startswith("capstan: the IDL /nowhere/idl.json cannot be read")
    _, said = run("idl", "diff", str(VAULT_IDL), code=2)
    assert "Missing argument 'B'" in said
    assert "No such command" in run("idl", "grow", code=2)[1]


@pytest.mark.parametrize(
    "arguments", [["decode"], ["decode-tx"], ["idl"], ["idl", "show"], ["idl", "diff"], ["idl", "fetch"]]
)
def test_help_fits_a_stranger(arguments: list[str]) -> None:
    """Every command says what it takes, in a terminal of 80 columns."""
    environment = {**os.environ, "COLUMNS": "80"}
    done = subprocess.run([*CAPSTAN, *arguments, "--help"], env=environment, capture_output=True, text=True, check=True)
    assert "Usage: " in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
