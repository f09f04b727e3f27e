"""GET /api/v1/models."""

from __future__ import annotations

import asyncio

from aiohttp import web

from umrgen_api.access import needs
from umrgen_api.errors import json_response
from umrgen_api.rates import Rate
from umrgen_api.render import render_model
from umrgen_api.services import services_of
from umrgen_core.agents import Scope


@needs(Scope.READ, Rate.READ)
async def list_models(request: web.Request) -> web.Response:
    """What `model` of a request may name, and what each model takes."""
    services = services_of(request)
    served = services.settings.served_models
    loras = await asyncio.to_thread(lambda: {name: services.loras.list_names(name) for name in served})
    default = services.settings.default_model
    models = [render_model(name, profile, loras[name], default=name == default) for name, profile in served.items()]
    return json_response({"success": True, "models": models})
