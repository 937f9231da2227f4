"""SQL text finds its way from the files to the database."""

import pytest

from indexer.store.queries import load_queries, parse_queries


def test_a_query_has_name_promise_parameters_and_text() -> None:
    """What stands under a name is the query; comments before the SQL are its promise."""
    queries = parse_queries(
        "-- a file\n\n-- name: one\n-- Idempotent:\n-- always.\n-- params: vault pubkey, limit int\nselect 1; -- x\n;\n"
        "-- name: two\nselect 2",
        source="x",
    )
    assert queries["one"].promise == "Idempotent: always."
    assert queries["one"].params == (("vault", "pubkey"), ("limit", "int"))
    assert queries["one"].text.startswith("select 1; -- x")
    assert queries["two"].text == "select 2"


@pytest.mark.parametrize("text", ["select 1\n-- name: a\nselect 2", "-- name: a\nselect 1\n-- name: a\nselect 2"])
def test_a_file_that_would_lose_sql_is_refused(text: str) -> None:
    """SQL before the first name, or a name twice, is our own bug and found at once."""
    with pytest.raises(ValueError, match=r"sql/queries/x\.sql"):
        parse_queries(text, source="x")


def test_every_file_of_the_house_can_be_read_and_every_query_promises_or_says_itself() -> None:
    """The shipped files parse, and none of them is empty."""
    for file in ("accounts", "dashboard", "engine", "indexer", "lake"):
        queries = load_queries(file)
        assert len(queries) > 0
        assert all(queries[name] for name in queries)


def test_an_unknown_name_says_which_file_lacks_it() -> None:
    """A typo in a name is found by its message."""
    with pytest.raises(KeyError, match=r"sql/queries/indexer\.sql has no query 'nothing'"):
        load_queries("indexer")["nothing"]
