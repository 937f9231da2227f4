"""The engine's key: read from a file, wrong files refused in one sentence, and never shown."""

import json
import pickle
from pathlib import Path

import pytest
from solders.hash import Hash
from solders.keypair import Keypair

from engine.keys import Signer, read_signer
from indexer.errors import SettingsError

SEED = bytes(range(32))


def test_a_keygen_file_gives_its_signer(tmp_path: Path) -> None:
    """A list of 64 bytes, as solana-keygen writes it, signs for its public key."""
    keypair = Keypair.from_seed(SEED)
    file = tmp_path / "id.json"
    file.write_text(keypair.to_json())
    signer = read_signer(file)
    assert signer.pubkey == keypair.pubkey()
    transaction = signer.sign([], blockhash=Hash.default())
    assert transaction.verify_with_results() == [True]


def test_the_secret_is_in_no_repr() -> None:
    """Neither repr nor str shows more than the public key, and the signer cannot be pickled into a log or a queue."""
    signer = Signer(Keypair.from_seed(SEED))
    assert repr(signer) == str(signer) == f"Signer({signer.pubkey})"
    assert not hasattr(signer, "__dict__")
    with pytest.raises(TypeError):
        pickle.dumps(signer)


@pytest.mark.parametrize(
    "content",
    [
        "not json",
        "{}",
        "[1, 2, 3]",
        json.dumps([0] * 63 + [256]),
        json.dumps([True] * 64),
        json.dumps([1.5] * 64),
        json.dumps("a" * 64),
        json.dumps(list(SEED) + list(SEED)),  # the public half is not that of the secret half
        "[" * 100_000,
    ],
)
def test_a_wrong_file_is_one_sentence_without_its_content(tmp_path: Path, content: str) -> None:
    """The operator reads which file and what is wrong with it, and nothing of what is in it."""
    file = tmp_path / "id.json"
    file.write_text(content)
    with pytest.raises(SettingsError) as caught:
        read_signer(file)
    message = str(caught.value)
    assert str(file) in message
    assert content[:20] not in message
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_a_missing_file_and_a_folder_are_settings_errors(tmp_path: Path) -> None:
    """What cannot be read is said with the reason of the system."""
    for path in (tmp_path / "missing.json", tmp_path):
        with pytest.raises(SettingsError, match=r"cannot read the engine's keypair"):
            read_signer(path)
