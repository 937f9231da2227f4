"""Other people's JavaScript clients live a life of every home program on localnet, as they would on any cluster."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from localnet.programs import PROGRAM_IDS
from tests.fixtures.chain import LocalnetThread
from tests.fixtures.client_checks import SLOT_MS, assert_lived, elapse_on
from tests.fixtures.client_tour import build_tour
from tests.fixtures.home_lives import LIVES
from tests.fixtures.lives import Life
from tests.fixtures.node import RunClient

Lived = tuple[Life, dict[str, Any]]
Live = Callable[[str, str], Lived]

every_program = pytest.mark.parametrize("program", PROGRAM_IDS)


@pytest.fixture
def live(start_localnet: Callable[..., LocalnetThread], run_client: RunClient) -> Live:
    """Return what lives a program's life by a script of tests/clients, and returns both the life and what was seen."""

    def lived(program: str, script: str) -> Lived:
        life = LIVES[program]()
        chain = life.build_chain()
        localnet = start_localnet(chain, slot_ms=SLOT_MS, extra_methods={"tests_elapse": elapse_on(chain)})
        seen = run_client(script, life.as_json(localnet.rpc_url, localnet.ws_url))
        assert_lived(life, localnet, seen)
        return life, seen

    return lived


@every_program
def test_anchor(live: Live, program: str) -> None:
    """
    @coral-xyz/anchor resolves the accounts, hears what `emit!` says, and turns a refusal into its AnchorError.

    What `emit_cpi!` says its listener cannot hear on any chain; from getTransaction it reads that, too.
    """
    life, seen = live(program, "anchor.mjs")
    for row, send in zip(seen["refused"], life.refusals, strict=True):
        assert row["is_anchor_error"]
        assert (row["code"], row["name"]) == send.refused
        assert row["program"] == str(life.program_id)
        assert row["message"] == _message(life, row["code"])


@every_program
def test_web3(live: Live, program: str) -> None:
    """@solana/web3.js finds every answer in the shape it checks for, in legacy transactions and in version 0."""
    life, seen = live(program, "web3.mjs")
    landed = [row["signature"] for row in seen["history"][::-1]]
    assert seen["noticed"] == landed
    assert [row["signature"] for row in seen["confirmed"]] == landed
    assert [row["err"] for row in seen["confirmed"]] == [row["err"] for row in seen["history"][::-1]]
    assert {str(fetch.address) for fetch in life.fetches} <= set(seen["changed"])
    for row, send in zip(seen["refused"], life.refusals, strict=True):
        assert send.refused is not None
        assert row["is_send_error"]
        reason = f"Error processing Instruction 0: custom program error: {send.refused[0]:#x}"
        assert row["message"] == f"Transaction simulation failed: {reason}"
        assert row["units"] == row["landed"]["units"] > 0


@every_program
def test_kit(live: Live, program: str) -> None:
    """@solana/kit confirms by its own subscriptions and block heights, and names a refusal as its own errors do."""
    life, seen = live(program, "kit.mjs")
    assert seen["noticed"] == [row["signature"] for row in seen["history"][::-1]]
    for row, send in zip(seen["refused"], life.refusals, strict=True):
        assert send.refused is not None
        assert row["is_preflight_error"]
        assert row["is_custom_error"]
        assert row["code"] == row["landed_code"] == send.refused[0]
        assert row["units"] > 0


def test_web3_asked_for_everything(start_localnet: Callable[..., LocalnetThread], run_client: RunClient) -> None:
    """@solana/web3.js, which checks every answer's shape, finds nothing amiss in any method that it has."""
    tour = build_tour()
    localnet = start_localnet(tour.chain, slot_ms=SLOT_MS)
    seen = run_client("tour-web3.mjs", json.dumps(tour.as_json(localnet.rpc_url, localnet.ws_url)))
    assert seen["failures"] == {}
    results = seen["results"]
    assert [row["pubkey"] for row in results["get_program_accounts"]] == [str(tour.account)]
    assert results["get_token_account_balance"]["value"]["amount"] == str(tour.tokens)
    parsed = results["get_parsed_account_info"]["value"]["data"]
    assert parsed["parsed"]["info"]["token_amount"] == results["get_token_account_balance"]["value"]
    (instruction,) = results["get_parsed_transaction"]["transaction"]["message"]["instructions"]
    assert instruction["accounts"][::3] == [str(tour.token_account), str(tour.owner)]
    assert results["get_block_signatures"]["signatures"] == [tour.signature]
    assert results["get_genesis_hash"] == tour.chain.genesis_hash
    assert results["get_fee_for_message"]["value"] == 5_000
    assert results["on_account_change"]["lamports"] == 1_000_000_000
    for name in ("request_airdrop", "send_transaction", "simulate_transaction"):
        assert results[name]["err"] is None


def test_kit_told_no(start_localnet: Callable[..., LocalnetThread], run_client: RunClient) -> None:
    """@solana/kit knows each refusal as one of its own errors, and each kind of notification."""
    tour = build_tour()
    blockhash, height = tour.expire()
    localnet = start_localnet(tour.chain, slot_ms=SLOT_MS)
    given = {**tour.as_json(localnet.rpc_url, localnet.ws_url), "expired_blockhash": blockhash}
    seen = run_client("tour-kit.mjs", json.dumps({**given, "expired_height": height}))
    preflight = "JSON_RPC__SERVER_ERROR_SEND_TRANSACTION_PREFLIGHT_FAILURE"
    assert seen["errors"] == {
        "blockhash_unknown": [preflight, "TRANSACTION_ERROR__BLOCKHASH_NOT_FOUND"],
        "expired": ["BLOCK_HEIGHT_EXCEEDED"],
        "future_block": ["JSON_RPC__SERVER_ERROR_BLOCK_NOT_AVAILABLE"],
        "future_context": ["JSON_RPC__SERVER_ERROR_MIN_CONTEXT_SLOT_NOT_REACHED"],
        "no_funds": [preflight, "INSTRUCTION_ERROR__CUSTOM"],
        "no_signature": ["JSON_RPC__SERVER_ERROR_TRANSACTION_SIGNATURE_VERIFICATION_FAILURE"],
        "sent_again": [preflight, "TRANSACTION_ERROR__ALREADY_PROCESSED"],
        "unknown_method": ["JSON_RPC__METHOD_NOT_FOUND"],
        "wrong_parameter": ["JSON_RPC__INVALID_PARAMS"],
    }
    notes = seen["notes"]
    assert notes["account"]["value"]["owner"] == "Sysvar1111111111111111111111111111111111111"
    assert notes["program"]["value"]["pubkey"] == "SysvarC1ock11111111111111111111111111111111"
    assert notes["block"]["value"]["block"]["parent_slot"] == str(int(notes["block"]["value"]["slot"]) - 1)
    assert int(notes["slot"]["root"]) >= int(notes["root"])


def _message(life: Life, code: int) -> str:
    (message,) = [error.message for error in life.compiled.idl.errors if error.code == code]
    return message or ""
