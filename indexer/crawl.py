"""
Blocks, one after the other: a second means to prove a range, which needs no index of addresses.

That a slot holds no block is proven by the next block above it, whose parentSlot lies below it, and by nothing else: a
node that says "skipped" may only be missing it. So the chain is followed from above, child to parent; the node's own
list of blocks only tells which to fetch together.
"""

from collections.abc import AsyncIterator, Collection, Mapping

import msgspec
from solders.pubkey import Pubkey

from indexer.errors import RetryableError
from indexer.sources import node
from indexer.sources.node import Block, ClosedBlock, SignatureInfo
from indexer.sources.rpc import Caller

# Fetched and held together: a full block may be several megabytes.
BLOCKS_TOGETHER = 4


async def crawl(rpc: Caller, from_slot: int, to_slot: int) -> AsyncIterator[tuple[int, Block | ClosedBlock]]:
    """
    Give every finalized block of [from_slot, to_slot], highest first; when it ends, there are no others.

    Args:
        rpc: one node; `pinned`.

    Raises:
        RetryableError: the node does not show a block that another one names as its parent, or none above the range.
    """
    hints = sorted((slot for slot in await node.fetch_block_slots(rpc, from_slot, to_slot)), reverse=True)
    if any(not from_slot <= slot <= to_slot for slot in hints):
        raise rpc.distrust(f"{rpc.shown_url} lists blocks that were not asked for")
    wanted = to_slot if hints[:1] == [to_slot] else await _parent_above(rpc, to_slot)
    while wanted >= from_slot:
        together = [wanted, *[slot for slot in hints if slot < wanted][: BLOCKS_TOGETHER - 1]]
        for slot, block in zip(together, await node.fetch_blocks(rpc, together), strict=True):
            if slot != wanted:  # the chain goes through a block that was not listed
                break
            yield slot, block
            if slot == 0:
                return
            if block.parent_slot >= slot:
                raise rpc.distrust(f"{rpc.shown_url} sent a block of slot {slot} whose parent is {block.parent_slot}")
            wanted = block.parent_slot


async def _parent_above(rpc: Caller, slot: int) -> int:
    """Return the slot of the highest block at or below `slot`, as the next block above it says."""
    above = await node.fetch_next_block_slot(rpc, slot + 1)
    if above is None:
        raise RetryableError(
            f"{rpc.shown_url} has no finalized block above slot {slot} yet, so nothing proves it empty"
        )
    header = (await node.fetch_headers(rpc, [above], commitment="finalized")).get(above)
    if header is None or above <= slot:
        raise rpc.distrust(f"{rpc.shown_url} lists a block in slot {above} and does not show it")
    if header.parent_slot > slot:
        raise rpc.distrust(f"{rpc.shown_url} does not list the block of slot {header.parent_slot}")
    return header.parent_slot


async def list_closed(
    rpc: Caller, program_id: bytes, blocks: Mapping[int, ClosedBlock], cursor: str | None
) -> list[SignatureInfo]:
    """
    Return what names a program in blocks that the node does not open, as its index of addresses has it.

    Args:
        rpc: one node, which also gave the blocks; `pinned`.
        blocks: by slot, at least one.
        cursor: a signature above all of them to begin at; None begins at the newest.

    Raises:
        RetryableError: the index does not reach so far back, or contradicts the blocks.
    """
    found: list[SignatureInfo] = []
    async for step in node.list_signatures(
        rpc, program_id, commitment="finalized", from_slot=min(blocks), to_slot=max(blocks), cursor=cursor
    ):
        await node.check_reach(rpc, step)
        found += [info for info in step.infos if info.slot in blocks]
    for info in found:
        if info.signature not in blocks[info.slot].signatures:
            raise rpc.distrust(f"{rpc.shown_url} lists {info.signature} in slot {info.slot}, whose block lacks it")
    return found


def bodies_of(slot: int, block: Block, program_ids: Collection[bytes]) -> list[bytes]:
    """
    Return the transactions of a block that name one of these programs, each as getTransaction would answer it.

    A program may also be named where it is not an account (in a log): whoever reads them looks again.
    """
    marks = [f'"{Pubkey(program_id)}"'.encode() for program_id in program_ids]
    head = b'{"slot":%d,"blockTime":%s,' % (slot, msgspec.json.encode(block.block_time))
    found = (bytes(raw).lstrip() for raw in block.transactions)
    return [head + raw[1:] for raw in found if any(mark in raw for mark in marks)]
