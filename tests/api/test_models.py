from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.api.conftest import Server, StartServer
from tests.conftest import make_settings


@pytest.fixture
async def two(start_server: StartServer, tmp_path: Path) -> Server:
    (tmp_path / "loras" / "other").mkdir(parents=True)
    (tmp_path / "loras" / "other" / "ink.safetensors").touch()
    tiny = make_settings(tmp_path / "data").models["tiny-klein"].model_dump()
    models: dict[str, Any] = {"tiny-klein": tiny, "other": {**tiny, "loras": 1, "references": 1, "max_steps": 6}}
    return await start_server(
        models=models,
        infer={"models": ["tiny-klein", "other"], "loras": str(tmp_path / "loras")},
        limits={"concurrent_jobs": 9},
    )


async def test_the_served_models_are_listed_with_their_limits_and_never_their_paths(two: Server) -> None:
    status, body, _ = await two.call("GET", "/api/v1/models")
    assert status == 200
    first, second = body["models"]
    assert (first["name"], first["default"], second["name"], second["default"]) == ("tiny-klein", True, "other", False)
    assert first["steps"] == {"default": 4, "min": 1, "max": 50}
    assert second["references"] == {"min": 0, "max": 1}
    assert (first["loras"], second["loras"]) == ({"max": 0, "names": []}, {"max": 1, "names": ["ink"]})
    assert first["size"]["native_side"] == 64
    assert "package" not in str(body)


async def test_a_request_names_its_model_and_loras_and_the_status_repeats_them(two: Server) -> None:
    status, body, _ = await two.generate(model="other", loras=[{"name": "ink", "strength": 0.5}])
    assert (status, body["ignored"]) == (202, [])
    _, told, _ = await two.call("GET", body["status_url"])
    assert (told["model"], told["loras"]) == ("other", [{"name": "ink", "strength": 0.5}])
    _, body, _ = await two.generate()
    _, told, _ = await two.call("GET", body["status_url"])
    assert (told["model"], told["loras"]) == ("tiny-klein", [])


async def test_a_limit_of_the_named_model_is_the_one_that_holds(two: Server) -> None:
    assert (await two.generate(steps=7))[0] == 202
    status, body, _ = await two.generate(model="other", steps=7)
    assert (status, body["errors"][0]["nearest"]) == (400, 6)
    status, body, _ = await two.generate(model="third")
    assert (status, body["errors"][0]["field"], body["errors"][0]["limit"]) == (400, "model", ["tiny-klein", "other"])
