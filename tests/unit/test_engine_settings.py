"""The engine's settings: flags over environment over defaults, secrets masked, nonsense refused by name."""

import pytest

from engine.settings import DEFAULT_PROGRAM, EngineSettings, read_settings
from indexer.errors import SettingsError


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CAPSTAN_ENGINE_RPC_URL", "CAPSTAN_RPC_URL", "DATABASE_URL", "CAPSTAN_ENGINE_DATABASE_URL"):
        monkeypatch.delenv(name, raising=False)


def test_flags_win_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A flag that was given counts; one that was not leaves the word to the environment, then to the default."""
    monkeypatch.setenv("CAPSTAN_ENGINE_INTERVAL_S", "7")
    monkeypatch.setenv("CAPSTAN_ENGINE_IN_FLIGHT_MAX", "9")
    monkeypatch.setenv("DATABASE_URL", "postgresql://a@b/c")
    settings = read_settings(interval_s=3.0, in_flight_max=None, rpc_url=None)
    assert settings.interval_s == 3.0
    assert settings.in_flight_max == 9
    assert settings.database_url is not None
    assert settings.database_url.get_secret_value() == "postgresql://a@b/c"
    assert settings.rpc_url.get_secret_value() == "http://127.0.0.1:8899"


def test_the_shared_names_are_read_and_the_engines_own_win(monkeypatch: pytest.MonkeyPatch) -> None:
    """One deployment sets CAPSTAN_RPC_URL for all processes; the engine's own name overrides it for the engine."""
    monkeypatch.setenv("CAPSTAN_RPC_URL", "http://shared:1")
    assert read_settings().rpc_url.get_secret_value() == "http://shared:1"
    monkeypatch.setenv("CAPSTAN_ENGINE_RPC_URL", "http://own:1")
    assert read_settings().rpc_url.get_secret_value() == "http://own:1"


def test_secrets_are_masked() -> None:
    """Neither the key in an RPC url nor the password of the database is in the repr."""
    settings = read_settings(rpc_url="https://node/?key=hush", database_url="postgresql://u:hush@h/d")
    assert "hush" not in repr(settings)


@pytest.mark.parametrize(
    ("name", "value"),
    [("interval_s", "hush"), ("in_flight_max", 0), ("min_reward_lamports", -1), ("compute_unit_limit", 10**7)],
)
def test_a_value_that_cannot_be_is_refused_by_name(name: str, value: object) -> None:
    """The message names the setting and does not repeat the value, which may be a misplaced secret."""
    with pytest.raises(SettingsError, match=name) as caught:
        read_settings(**{name: value})
    assert "hush" not in str(caught.value)
    assert "it must be" in str(caught.value)


def test_a_program_must_be_an_address() -> None:
    """A wrong program id is said with the value; the default is the home program."""
    assert len(read_settings(program=DEFAULT_PROGRAM).program_id) == 32
    with pytest.raises(SettingsError, match="no-such-id"):
        _ = read_settings(program="no-such-id").program_id


def test_the_lease_outlives_the_wait_between_two_passes() -> None:
    """A slow interval makes the lease longer, or it would be lost in every pause."""
    assert EngineSettings(interval_s=60).lease_s == 240
    assert EngineSettings(interval_s=1).lease_s == 15
