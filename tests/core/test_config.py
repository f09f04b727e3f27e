from __future__ import annotations

import os
import shutil
import tomllib
from pathlib import Path

import pytest
from pydantic import BaseModel

from tests.conftest import DEVELOPMENT_KEY, ROOT
from umrgen_core.config import Settings, load_settings
from umrgen_core.errors import ConfigError
from umrgen_core.sections import ApiSettings

SHIPPED = ROOT / "config.toml"
MODEL = '[models.tiny-klein]\npipeline = "Flux2KleinPipeline"\npath = "weights"\n'
SECTIONS = [name for name in Settings.model_fields if name != "models"]


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.upper().startswith("UMRGEN_")]:
        monkeypatch.delenv(name)


def write(folder: Path, text: str = "", model: str = MODEL) -> Path:
    path = folder / "config.toml"
    path.write_text(f"{text}\n{model}")
    return path


def refusal(path: Path) -> str:
    with pytest.raises(ConfigError) as refused:
        load_settings(path)
    return refused.value.message


@pytest.mark.parametrize("section", SECTIONS)
def test_the_shipped_file_names_every_key_with_its_default(section: str) -> None:
    default: BaseModel = Settings.model_fields[section].default
    expected = default.model_dump()
    if section == "auth":
        assert expected["development_key"] == ""
        expected["development_key"] = DEVELOPMENT_KEY
    if section == "storage":
        expected["data_dir"] = str(expected["data_dir"])
    assert tomllib.loads(SHIPPED.read_text())[section] == expected


def test_the_shipped_file_has_no_section_that_the_code_lacks() -> None:
    assert set(tomllib.loads(SHIPPED.read_text())) == {*SECTIONS, "models"}


def test_the_shipped_file_loads_and_serves_its_model() -> None:
    settings = load_settings(SHIPPED)
    assert settings.default_model == "tiny-klein"
    assert settings.models["tiny-klein"].native_px == 64
    assert settings.storage.data_dir == ROOT / "var"


def test_an_almost_empty_file_means_the_defaults(tmp_path: Path) -> None:
    settings = load_settings(write(tmp_path))
    assert settings.api == ApiSettings()
    assert settings.auth.development_key == ""


def test_the_environment_goes_before_the_file_key_by_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, '[api]\nhost = "127.0.0.9"\nport = 4000')
    monkeypatch.setenv("UMRGEN_API__PORT", "5000")
    monkeypatch.setenv("UMRGEN_JOBS__MAX_ATTEMPTS", "7")
    settings = load_settings(path)
    assert (settings.api.host, settings.api.port) == ("127.0.0.9", 5000)
    assert (settings.jobs.max_attempts, settings.jobs.lease_s) == (7, 30)


def test_the_environment_can_change_one_key_of_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, '[infer]\nmodels = ["klein"]', MODEL.replace("tiny-klein", "klein"))
    monkeypatch.setenv("UMRGEN_MODELS__KLEIN__STEPS", "9")
    profile = load_settings(path).models["klein"]
    assert (profile.steps, profile.pipeline) == (9, "Flux2KleinPipeline")


def test_a_list_in_the_environment_is_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, "", MODEL + MODEL.replace("tiny-klein", "other"))
    monkeypatch.setenv("UMRGEN_INFER__MODELS", '["other"]')
    settings = load_settings(path)
    assert settings.infer.models == ["other"]
    assert settings.default_model == "other"


def test_a_list_in_the_environment_that_is_no_json_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UMRGEN_INFER__MODELS", "tiny-klein")
    message = refusal(write(tmp_path))
    assert "environment" in message
    assert "infer" in message


@pytest.mark.parametrize("where", ["file", "environment"])
def test_a_relative_data_dir_is_below_the_folder_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    folder, elsewhere = tmp_path / "etc", tmp_path / "elsewhere"
    folder.mkdir()
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    if where == "environment":
        monkeypatch.setenv("UMRGEN_STORAGE__DATA_DIR", "data/../store")
        path = write(folder)
    else:
        path = write(folder, '[storage]\ndata_dir = "data/../store"')
    settings = load_settings(Path("../etc") / path.name)
    assert settings.storage.data_dir == folder / "store"
    assert settings.storage.database == folder / "store" / "umrgen.sqlite3"
    assert settings.models["tiny-klein"].path == str(folder / "weights")


def test_the_owners_lists_are_below_the_folder_of_the_file_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    assert load_settings(write(tmp_path, '[safety]\nlists = "mine"')).safety.lists == str(tmp_path / "mine")
    assert load_settings(write(tmp_path)).safety.lists == ""


def test_an_absolute_data_dir_and_the_path_of_a_package_are_kept(tmp_path: Path) -> None:
    shutil.copy(SHIPPED, tmp_path / "config.toml")
    path = tmp_path / "config.toml"
    path.write_text(path.read_text().replace('data_dir = "var"', 'data_dir = "/srv/umrgen"'))
    settings = load_settings(path)
    assert settings.storage.data_dir == Path("/srv/umrgen")
    assert settings.models["tiny-klein"].path == "package:umrgen_infer/tiny_klein"


@pytest.mark.parametrize(
    ("text", "named", "known"),
    [
        ("[api]\nprot = 1", "[api] prot", "host, port, public_url"),
        ("[apy]\nport = 1", "apy", "api, storage, auth"),
        ("[models.tiny-klein.x]", "[models.tiny-klein] x", "pipeline, path, revision"),
    ],
)
def test_an_unknown_key_is_refused_beside_those_that_are_known(
    tmp_path: Path, text: str, named: str, known: str
) -> None:
    message = refusal(write(tmp_path, text))
    assert f"{named}: unknown key" in message
    assert known in message


@pytest.mark.parametrize(
    "name",
    ["UMRGEN_PORT", "UMRGEN_API", "UMRGEN_APY__PORT", "UMRGEN_API_PORT", "UMRGEN_API__", "umrgen_prot", "UMRGEN_"],
)
def test_a_variable_that_names_no_section_is_refused_with_the_form(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "1")
    message = refusal(write(tmp_path))
    assert message.startswith(f"{name}: ")
    assert "UMRGEN_SECTION__KEY" in message
    assert "api, storage, auth, limits" in message


def test_a_variable_that_names_no_key_is_refused_with_the_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UMRGEN_API__PROT", "1")
    message = refusal(write(tmp_path))
    assert "[api] prot: unknown key" in message
    assert "host, port, public_url" in message


@pytest.mark.parametrize(
    ("text", "named", "allowed", "got"),
    [
        ("[api]\nport = 65536", "[api] port", "less than or equal to 65535", "65536"),
        ("[api]\nport = -1", "[api] port", "greater than or equal to 0", "-1"),
        ('[api]\npublic_url = "https://a/b"', "[api] public_url", "pattern", "https://a/b"),
        ("[storage]\nlock_timeout_s = 0", "[storage] lock_timeout_s", "greater than 0", "0"),
        ("[jobs]\nmax_attempts = 0", "[jobs] max_attempts", "greater than or equal to 1", "0"),
        ("[uploads]\nmemory_bytes = 1", "[uploads] memory_bytes", "greater than or equal to 268435456", "1"),
        ("[infer]\nmodels = []", "[infer] models", "at least 1 item", "[]"),
        ('[log]\nlevel = "loud"', "[log] level", "'debug', 'info', 'warning' or 'error'", "loud"),
        ("[limits]\nqueued_jobs = 1.5", "[limits] queued_jobs", "integer", "1.5"),
        ('[auth]\ndevelopment_key = "a b"', "[auth] development_key", "pattern", "a b"),
    ],
)
def test_a_bad_value_is_refused_with_key_range_and_value(
    tmp_path: Path, text: str, named: str, allowed: str, got: str
) -> None:
    message = refusal(write(tmp_path, text))
    assert message.startswith(f"{named}: ")
    assert allowed in message
    assert f"got {got}" in message.replace("'", "") or f"got '{got}'" in message


def test_every_problem_is_told_at_once(tmp_path: Path) -> None:
    lines = refusal(write(tmp_path, "[api]\nport = -1\nprot = 1\n[log]\nfiles = 0")).splitlines()
    assert {line.split(":")[0] for line in lines} == {"[api] port", "[api] prot", "[log] files"}


def test_a_heartbeat_must_fit_twice_into_the_lease(tmp_path: Path) -> None:
    message = refusal(write(tmp_path, "[jobs]\nlease_s = 8\nheartbeat_s = 4.5"))
    assert "jobs: heartbeat_s must be at most half of lease_s (4)" in message
    assert load_settings(write(tmp_path, "[jobs]\nlease_s = 8\nheartbeat_s = 4")).jobs.heartbeat_s == 4


def test_a_served_model_must_be_described(tmp_path: Path) -> None:
    message = refusal(write(tmp_path, '[infer]\nmodels = ["flux"]'))
    assert "['flux']" in message
    assert "described: tiny-klein" in message


def test_a_model_needs_a_plain_name(tmp_path: Path) -> None:
    assert "may hold letters" in refusal(write(tmp_path, "", MODEL + MODEL.replace("tiny-klein", '"a/b"')))


def test_a_missing_file_is_named_with_what_to_do(tmp_path: Path) -> None:
    message = refusal(tmp_path / "none.toml")
    assert str(tmp_path / "none.toml") in message
    assert "--config" in message


@pytest.mark.parametrize("content", [b"[api\n", b"\xff\xfe", b"[api]\nport = 1\nport = 2\n"])
def test_a_file_that_is_no_toml_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(content)
    assert refusal(path).startswith(f"{path}: ")


def test_settings_are_frozen(tmp_path: Path) -> None:
    settings = load_settings(write(tmp_path))
    with pytest.raises(ValueError, match="frozen"):
        settings.api.port = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("gpu", False)],
)
def test_loopback_addresses_are_told_from_others(host: str, loopback: bool) -> None:
    assert ApiSettings(host=host).listens_on_loopback() is loopback
