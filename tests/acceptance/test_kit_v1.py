"""Version 1 transactions that @solana/kit wrote: the same instructions, accounts and rights are read from the bytes."""

import json
import random
from typing import Any

from solders.pubkey import Pubkey

from indexer.chain.transaction import parse_transaction
from tests.fixtures.node import RunClient

# What kit calls an account's role: bit 0 may be written, bit 1 signs.
WRITABLE, SIGNER = 1, 2
SEED = 385
TRANSACTIONS = 40


def wanted_transaction(rng: random.Random) -> dict[str, Any]:
    keys = [str(Pubkey(rng.randbytes(32))) for _ in range(rng.randrange(3, 30))]
    configs: dict[str, int] = {
        "computeUnitLimit": rng.randrange(1_400_000),
        "heapSize": 32 * 1024,
        "loadedAccountsDataSizeLimit": rng.randrange(1 << 20),
        "priorityFeeLamports": rng.randrange(1 << 40),
    }
    # Kit merges the roles of an account; one role for each keeps the test from doing the same.
    roles = {key: rng.choice([0, WRITABLE, SIGNER, SIGNER | WRITABLE, 0, WRITABLE]) for key in keys[2:]}
    signers = [key for key in roles if roles[key] & SIGNER][8:]
    roles |= {key: roles[key] & WRITABLE for key in signers}
    return {
        "payer": keys[0],
        "hash": str(Pubkey(rng.randbytes(32))),
        "config": {name: value for name, value in configs.items() if rng.random() < 0.5},
        "signature": rng.randbytes(64).hex(),
        "instructions": [
            {
                "program": keys[1],
                "accounts": [
                    {"key": key, "role": roles[key]} for key in rng.sample(keys[2:], rng.randrange(len(roles)))
                ],
                "data": rng.randbytes(rng.choice([0, 1, 8, 300])).hex(),
            }
            for _ in range(rng.randrange(1, 6))
        ],
    }


def test_kit_and_we_mean_the_same_bytes(run_client: RunClient) -> None:
    """All shapes: no config and all of it, no accounts and many, no data and hundreds of bytes."""
    rng = random.Random(SEED)
    wanted = [wanted_transaction(rng) for _ in range(TRANSACTIONS)]
    for want, encoded in zip(wanted, run_client("v1.mjs", json.dumps(wanted)), strict=True):
        tx = parse_transaction({"slot": 1, "version": 1, "transaction": [encoded, "base64"]})
        assert (tx.version, tx.keys_complete, tx.signature.hex()) == ("1", True, want["signature"])
        roles = {
            key: WRITABLE * tx.writable[index] + SIGNER * (index < tx.signers)
            for index, key in enumerate(tx.account_keys)
        }
        assert tx.account_keys[0] == key_bytes(want["payer"])
        assert roles[tx.account_keys[0]] == SIGNER | WRITABLE
        assert len(tx.instructions) == len(want["instructions"])
        for instruction, asked in zip(tx.instructions, want["instructions"], strict=True):
            assert instruction.program_id == key_bytes(asked["program"])
            assert instruction.data.hex() == asked["data"]
            found = [(account, roles[account]) for account in tx.accounts_of(instruction)]
            assert found == [(key_bytes(account["key"]), account["role"]) for account in asked["accounts"]]


def key_bytes(text: str) -> bytes:
    return bytes(Pubkey.from_string(text))
