"""A demo's folder: new at every start, and never somebody else's."""

from pathlib import Path

import pytest

from capstan.folder import demo_folder
from indexer.errors import SettingsError


def test_a_temporary_folder_goes_with_the_demo() -> None:
    """Without a wish nothing is left behind."""
    with demo_folder(None) as folder:
        (folder / "lake").mkdir()
        (folder / "lake" / "x.parquet").touch()
    assert not folder.exists()


def test_a_named_folder_stays_and_is_emptied_by_the_next_demo(tmp_path: Path) -> None:
    """The last demo can be looked at; the next one starts from nothing."""
    with demo_folder(tmp_path / "demo") as folder:
        (folder / "postgres").mkdir()
        (folder / "postgres" / "base").touch()
    assert (folder / "postgres" / "base").exists()
    with demo_folder(folder):
        assert [entry.name for entry in folder.iterdir()] == [".capstan-demo"]


def test_somebody_elses_folder_is_refused(tmp_path: Path) -> None:
    """A wrong path must not cost anybody their files."""
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(SettingsError, match="is not empty"), demo_folder(tmp_path):
        pass
    assert (tmp_path / "thesis.tex").exists()


def test_two_demos_never_share_a_folder(tmp_path: Path) -> None:
    """The second one is told, and the first goes on."""
    with demo_folder(tmp_path / "demo") as folder:
        (folder / "kept").touch()
        with pytest.raises(SettingsError, match="another demo is running"), demo_folder(folder):
            pass
        assert (folder / "kept").exists()


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    """Also for root, whom permissions do not stop: here a file stands in the way."""
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match="cannot be written"), demo_folder(tmp_path / "file" / "demo"):
        pass
