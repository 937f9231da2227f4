"""Program derived addresses: where a program keeps what belongs to whom."""

from collections.abc import Sequence

from solders.pubkey import Pubkey

from indexer.errors import DataError

SEEDS_MAX = 15  # the bump takes the sixteenth place
SEED_BYTES_MAX = 32


def find_pda(seeds: Sequence[bytes], program_id: bytes) -> tuple[bytes, int]:
    """
    Return the address (32 bytes) and the bump that the runtime finds for `seeds` under `program_id`.

    Raises:
        DataError: more than 15 seeds, or one longer than 32 bytes; the runtime has no address for those.
    """
    if len(seeds) > SEEDS_MAX:
        raise DataError(f"{len(seeds)} seeds are more than the {SEEDS_MAX} a program address can have")
    for index, seed in enumerate(seeds):
        if len(seed) > SEED_BYTES_MAX:
            raise DataError(f"seed {index} has {len(seed)} bytes, more than the {SEED_BYTES_MAX} it may have")
    address, bump = Pubkey.find_program_address(list(seeds), Pubkey.from_bytes(program_id))
    return bytes(address), bump
