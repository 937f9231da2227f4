"""Seeded runs with every fault, forks and kills: the tables end as those of an indexer that saw only the end."""

from collections.abc import Callable
from pathlib import Path

import pytest

from indexer.store.audit import read_lake, read_postgres
from indexer.store.database import Database
from indexer.store.migrate import migrate
from tests.fixtures.fingerprint import differences, fingerprint
from tests.fixtures.simulation import Simulation


@pytest.mark.timeout(170)
def test_after_everything_went_wrong_the_tables_are_those_of_a_clean_run(
    sim_seed: int, make_database: Callable[[], Database], tmp_path: Path
) -> None:
    """Faults of every kind, forks and kill -9, then quiet: every row of every table and of the lake is the same."""
    dirty, clean = make_database(), make_database()
    for database in (dirty, clean):
        migrate(database.dsn)
    simulation = Simulation(sim_seed, dirty.dsn, tmp_path / "dirty")
    simulation.after = lambda: simulation.catch_up(clean.dsn, tmp_path / "clean")  # type: ignore[method-assign] # its hook
    simulation.run()
    assert fingerprint(clean.dsn)["transactions"].rows > 100
    assert not differences(dirty.dsn, clean.dsn), f"seed {sim_seed}: {simulation.log}"
    lake = read_lake(dirty.dsn).events
    assert lake == read_lake(clean.dsn).events, f"seed {sim_seed}: {simulation.log}"
    assert lake == read_postgres(clean.dsn).events
