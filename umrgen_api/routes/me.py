"""GET /api/v1/me."""

from __future__ import annotations

from dataclasses import asdict

from aiohttp import web

from umrgen_api.access import agent_of, needs
from umrgen_api.errors import json_response
from umrgen_api.rates import Rate
from umrgen_api.routes.status import describe_job
from umrgen_api.services import services_of
from umrgen_core.agents import Scope


@needs(Scope.READ, Rate.READ)
async def get_me(request: web.Request) -> web.Response:
    """Who is asking: scopes, limits, what is used of them, and the jobs under way."""
    services, agent = services_of(request), agent_of(request)
    usage = await services.agents.get_usage(agent)
    active = await services.jobs.list_active(agent)
    return json_response(
        {
            "success": True,
            "agent": agent.name,
            "session_id": agent.session_id,
            "scopes": sorted(agent.scopes),
            "limits": asdict(agent.limits),
            "usage": {**usage, "concurrent_jobs": len(active)},
            "current_jobs": [await describe_job(services, job) for job in active],
        }
    )
