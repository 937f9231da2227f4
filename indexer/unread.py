"""
Transactions that an older version of this code could not read, asked for again.

What they are is in the database: rows without a fee, and problems that name their version. `coverage.py` keeps them
so; here a start with a higher ceiling reads what it can. What a node no longer has stays as it is, and stops nothing.
"""

from collections.abc import Mapping

import structlog
from solders.signature import Signature

from indexer.coverage import Prepared, Settler
from indexer.intake import Programs, read_answers
from indexer.sources import node
from indexer.sources.rpc import Caller
from indexer.store.database import Pool, session
from indexer.store.stored import select_unread
from indexer.store.typed import ProgramTables

# Asked, held and written together.
TOGETHER = 100

log = structlog.get_logger("indexer.unread")


async def read_again(rpc: Caller, pool: Pool, programs: Programs, tables: Mapping[bytes, ProgramTables]) -> int:
    """
    Read and store what was of a version too new, and is not any more. Return how many transactions that were.

    Raises:
        RetryableError: node or database did not answer; what was read stays read.
    """
    rpc = rpc.pinned()
    settler = Settler(pool, programs, tables)
    done, after = 0, b""
    while True:
        async with session(pool) as connection:
            unread = await select_unread(
                connection, list(programs), version_max=node.TRANSACTION_VERSION_MAX, after=after, limit=TOGETHER
            )
        if not unread:
            return done
        after = max(unread)
        texts = [str(Signature(signature)) for signature in unread]
        answers = await node.fetch_transactions(rpc, texts, commitment="finalized")
        bodies = [answer for answer in answers if isinstance(answer, bytes)]
        read = read_answers(rpc, bodies, programs, "finalized")
        for row in read.transactions:
            if unread.get(row.signature) != row.slot:
                raise rpc.distrust(
                    f"{rpc.shown_url} shows {Signature(row.signature)} in slot {row.slot}, and it is final in "
                    f"{unread.get(row.signature)}"
                )
        await settler.write(Prepared([], read, {}, {}))
        done += len(bodies)
        if len(bodies) < len(texts):
            log.warning("the node does not have what could not be read before", transactions=len(texts) - len(bodies))
