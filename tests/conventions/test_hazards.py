"""The list of hazards and the tests of them say the same."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
FAULTS = ROOT / "tests" / "faults"
DOCUMENT = ROOT / "docs" / "hazards.md"


def functions_of(path: Path) -> dict[str, str]:
    """Return the tests of a file, each with its docstring."""
    functions = ast.walk(ast.parse(path.read_text()))
    return {
        node.name: ast.get_docstring(node) or ""
        for node in functions
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    }


def rows() -> list[list[str]]:
    """Return the cells of each row of the document's tables."""
    lines = [line for line in DOCUMENT.read_text().splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines if "What goes wrong" not in line]


def named() -> list[tuple[str, str]]:
    """Return every test that the document names, as file and function."""
    return re.findall(r"`(test_\w+\.py)::(test_\w+)`", DOCUMENT.read_text())


def test_every_hazard_names_its_tests() -> None:
    """A row is a hazard, what is done about it, and one test at least."""
    assert len(rows()) > 30
    assert [row for row in rows() if len(row) != 3 or "::test_" not in row[2]] == []


def test_every_test_that_is_named_is_there_and_says_what_it_shows() -> None:
    """A hazard whose test was renamed or removed is a hazard that nobody watches."""
    there = {path.name: functions_of(path) for path in FAULTS.glob("test_*.py")}
    assert [f"{file}::{name}" for file, name in named() if not there.get(file, {}).get(name)] == []


def test_every_test_of_a_hazard_is_named() -> None:
    """What the indexer's hazard tests show stands in the document."""
    shown = set(named())
    files = sorted(FAULTS.glob("test_indexer_hazards_*.py"))
    assert len(files) == 5
    assert [
        f"{path.name}::{name}" for path in files for name in functions_of(path) if (path.name, name) not in shown
    ] == []


def test_the_architecture_leads_to_the_list() -> None:
    """Who reads how it is built finds what it is built against."""
    assert "(hazards.md)" in (ROOT / "docs" / "architecture.md").read_text()
