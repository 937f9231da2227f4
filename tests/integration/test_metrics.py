"""What /metrics says is what the tables hold; and no number is promised that nobody sets."""

import re
from pathlib import Path
from typing import Any

from prometheus_client import REGISTRY
from prometheus_client.metrics import MetricWrapperBase

from indexer import metrics
from indexer.store.database import Database
from tests.fixtures.hazard_rig import HazardNode, Told, data_line, deposit, indexing
from tests.fixtures.scripted_node import PROGRAM, PROGRAM_ADDRESS

SOURCES = Path(metrics.__file__).parent


def value(name: str, **labels: str) -> float | None:
    """Return a sample's value."""
    return REGISTRY.get_sample_value(name, labels)


def test_every_metric_is_moved_by_something() -> None:
    """A gauge that nobody sets says 0 for ever, which an operator takes for good news."""
    names = {name for name, found in vars(metrics).items() if isinstance(found, MetricWrapperBase)}
    text = "\n".join(path.read_text() for path in SOURCES.rglob("*.py"))
    assert names - set(re.findall(r"\bmetrics\.([A-Z_]+)\b", text)) == set()
    assert len(names) > 10


async def test_gaps_and_what_could_not_be_read_are_the_numbers_of_the_tables(
    database: Database, tmp_path: Path
) -> None:
    """Cut logs and a hole in the ledger are seen; the distance to the tip is no hole; what is mended is gone."""

    def cut(body: dict[str, Any]) -> None:
        opened = f"Program {PROGRAM_ADDRESS} invoke [1]"
        body["meta"]["logMessages"] = [opened, data_line(deposit(1)), "Log truncated"]

    before = value("capstan_events_total") or 0.0
    async with indexing(database, tmp_path, HazardNode([Told(1, 5, change=cut)], finalized_slot=50)) as it:
        await it.catch_up()
        await it.indexer.measure()
        assert value("capstan_events_total") == before + 1
        assert value("capstan_incomplete_transactions") == 1
        assert value("capstan_problems", program=PROGRAM.name, kind="truncated") == 1
        assert value("capstan_gaps", program=PROGRAM.name) == 0
        it.sql("update capstan.heartbeats set tip_slot = 9000 returning 1")
        it.sql(
            "insert into capstan.coverage (program_id, from_slot, to_slot, means) values (%s, 5000, 6000, 'blocks') "
            "returning 1",
            PROGRAM.program_id,
        )
        it.sql("delete from capstan.problems returning 1")
        await it.indexer.measure()
        assert value("capstan_gaps", program=PROGRAM.name) == 1
        assert value("capstan_problems", program=PROGRAM.name, kind="truncated") is None
