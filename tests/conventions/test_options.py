"""A flag that several commands have is said once."""

import ast
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[2]


def helps(path: Path) -> list[str]:
    """Return what a module's flags and arguments say of themselves."""
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    options = [call for call in calls if ast.unparse(call.func) in ("typer.Option", "typer.Argument")]
    return [ast.unparse(word.value) for option in options for word in option.keywords if word.arg == "help"]


def test_no_flag_of_the_indexer_is_written_twice() -> None:
    """Who corrects a flag's words corrects them for every command that has it."""
    said = Counter(text for path in sorted((ROOT / "indexer").rglob("*.py")) for text in helps(path))
    assert len(said) > 30
    assert [text for text, times in said.items() if times > 1] == []
