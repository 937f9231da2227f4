"""The indexer's settings: nonsense is refused by name, in a sentence that says what would be right."""

from pathlib import Path

import pytest

from indexer.errors import SettingsError
from indexer.settings import IndexerSettings
from localnet.settings import LocalnetSettings

ODD: list[tuple[str, object, str]] = [
    ("workers", 0, "the setting workers is not valid: it must be 1 or more"),
    ("workers", "hush", "the setting workers is not valid: it must be a whole number"),
    ("workers", 1.5, "the setting workers is not valid: it must be a whole number"),
    ("metrics_port", 70_000, "the setting metrics_port is not valid: it must be 65535 or less"),
    ("export_interval_s", 0, "the setting export_interval_s is not valid: it must be more than 0"),
    ("rpc_rate", "hush", "the setting rpc_rate is not valid: it must be a number"),
    ("rpc_rate", float("nan"), "the setting rpc_rate is not valid: it must be"),
    ("retention", "5y", "the setting retention is not valid: '5y' is neither off nor a time such as 36h, 7d or 4w"),
    ("data_dir", 7, "the setting data_dir is not valid: it must be a path"),
    ("database_url", 7, "the setting database_url is not valid: it must be a text"),
]


@pytest.mark.parametrize(("name", "value", "sentence"), ODD)
def test_a_value_that_cannot_be_is_one_sentence_of_ours(name: str, value: object, sentence: str) -> None:
    """Nothing of the library that found it shows through, and the value only where it can be no secret."""
    with pytest.raises(SettingsError) as caught:
        IndexerSettings.read(**{name: value})
    said = str(caught.value)
    assert said.startswith(sentence)
    assert [word for word in ("Value error", "Input", "hush", "<class") if word in said] == []


def test_the_environment_is_refused_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was not given as a flag is named as the flag would be."""
    monkeypatch.setenv("CAPSTAN_WORKERS", "many")
    with pytest.raises(SettingsError, match="the setting workers is not valid: it must be a whole number"):
        IndexerSettings.read()


def test_localnet_says_it_alike() -> None:
    """One way to say it for every process."""
    with pytest.raises(SettingsError, match="localnet's setting rpc_port is not valid: it must be 65535 or less"):
        LocalnetSettings.read(rpc_port=70_000, ledger=Path())
