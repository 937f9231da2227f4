"""What holds for every file of the tree, whoever wrote it."""

import ast
import json
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("capstan", "indexer", "engine", "dashboard", "localnet", "sql")


def python_files() -> list[Path]:
    return sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def text_files() -> list[Path]:
    """Every file git knows, or may come to know, that is text."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode != 0:
        pytest.skip("not a git checkout: nothing lists the project's own files")
    binary = {".so", ".png", ".woff2", ".lock"}
    return [ROOT / name for name in listed.stdout.splitlines() if Path(name).suffix not in binary]


@pytest.mark.parametrize("path", python_files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_module_says_why_it_exists(path: Path) -> None:
    """A module without a docstring of its own words is a module nobody can place."""
    assert len(ast.get_docstring(ast.parse(path.read_text())) or "") > 20


@pytest.mark.parametrize("path", python_files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_public_function_says_what_it_does(path: Path) -> None:
    """Public functions, methods and classes with methods carry a docstring; a plain value's name may be enough."""
    silent = []
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.ClassDef):
            scope = node.body if isinstance(node, ast.Module) else []
        else:
            scope = [] if node.name.startswith("_") or _is_protocol(node) else node.body
        for child in scope:
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                overload = any(ast.unparse(d).endswith(("overload", "setter")) for d in child.decorator_list)
                plain = isinstance(child, ast.ClassDef) and not any(isinstance(n, ast.FunctionDef) for n in child.body)
                if not child.name.startswith("_") and not ast.get_docstring(child) and not overload and not plain:
                    silent.append(f"{child.name} (line {child.lineno})")
    assert silent == []


def _is_protocol(node: ast.ClassDef) -> bool:
    return any(ast.unparse(base).startswith("Protocol") for base in node.bases)


# What other people have called things.
IDLS = ROOT / "tests" / "fixtures" / "idls" / "public"


def test_nothing_unfinished_and_no_path_of_a_machine() -> None:
    """The tree holds no unfinished marks, no home folders and no registry addresses."""
    marks = re.compile(r"\bTO" r"DO\b|\bFIX" r"ME\b|/home/[a-z]+/|/root/|\bNotImplemented" r"Error")
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:80]}"
        for path in text_files()
        if path.is_file() and path != Path(__file__) and IDLS not in path.parents
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
        if marks.search(line)
    ]
    assert found == []


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-dev.lock"])
def test_locks_hold_hashes_and_no_addresses(name: str) -> None:
    """Every requirement is pinned by hash; nothing says where it was found."""
    text = (ROOT / name).read_text()
    assert "://" not in text
    assert text.count("==") > 50
    for entry in re.split(r"\n(?=[a-z0-9])", text.split("make lock\n", 1)[1]):
        assert "--hash=sha256:" in entry, entry.splitlines()[0]


def test_the_lock_of_npm_holds_hashes_and_no_addresses() -> None:
    """Every package of the JavaScript clients is pinned, by version and hash; nothing says where it was found."""
    folder = ROOT / "tests" / "clients"
    text = (folder / "package-lock.json").read_text()
    assert "://" not in text
    packages = json.loads(text)["packages"]
    direct = packages.pop("")["dependencies"]
    assert direct == json.loads((folder / "package.json").read_text())["dependencies"]
    assert all(re.fullmatch(r"(npm:@?[\w/-]+@)?\d+\.\d+\.\d+", version) for version in direct.values())
    assert [name for name, package in packages.items() if not package.get("integrity", "").startswith("sha512-")] == []


def test_every_direct_dependency_is_locked() -> None:
    """A dependency that was added and not locked would fail only on a fresh machine."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    locked = set(re.findall(r"^([a-z0-9._-]+)==", (ROOT / "requirements.lock").read_text(), re.MULTILINE))
    wanted = {re.split(r"[\[<>=~ ]", dependency)[0].lower() for dependency in project["project"]["dependencies"]}
    assert wanted <= locked


def test_tests_have_names_of_their_own() -> None:
    """Test folders are no packages, so two files of one name would shadow each other."""
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))
