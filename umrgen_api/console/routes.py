"""Every route of the console."""

from __future__ import annotations

from aiohttp import web

from umrgen_api.access import Handler
from umrgen_api.console import accounts, admin, assets, create, jobs, pictures, sign_in
from umrgen_api.console.gate import SESSIONS, by_session
from umrgen_api.console.pages import TEMPLATES, load_templates
from umrgen_api.console.sessions import Sessions
from umrgen_api.routes import events, references, status
from umrgen_api.routes import jobs as api_jobs
from umrgen_core.config import Settings

CONSOLE_ROUTES: tuple[tuple[str, str, Handler], ...] = (
    ("GET", "/console", create.show_form),
    ("GET", "/console/", create.lead_to_form),
    ("POST", "/console", create.post_form),
    ("GET", "/console/sign-in", sign_in.show_sign_in),
    ("POST", "/console/sign-in", sign_in.sign_in),
    ("POST", "/console/sign-out", sign_in.sign_out),
    ("GET", "/console/static/{asset}", assets.get_asset),
    ("GET", "/console/gallery", jobs.show_gallery),
    ("GET", "/console/queue", jobs.show_queue),
    ("GET", "/console/jobs/{job_id}", jobs.show_job),
    ("POST", "/console/jobs/{job_id}/cancel", jobs.cancel_job),
    ("POST", "/console/jobs/{job_id}/erase", jobs.erase_job),
    ("GET", "/console/references/{filename}", pictures.get_reference),
    ("GET", "/console/outputs/{filename}", pictures.get_output),
    ("GET", "/console/admin", admin.show_service),
    ("POST", "/console/admin/queue", admin.control_queue),
    ("POST", "/console/admin/jobs/{job_id}", admin.control_job),
    ("GET", "/console/admin/agents", accounts.show_agents),
    ("POST", "/console/admin/agents", accounts.create_agent),
    ("POST", "/console/admin/limits", accounts.limit_agent),
    ("POST", "/console/admin/keys", accounts.create_key),
    ("POST", "/console/admin/keys/{key_id}", accounts.change_key),
    ("POST", "/console/api/upload-reference", by_session(references.upload_reference)),
    ("DELETE", "/console/api/references/{filename}", by_session(references.delete_reference)),
    ("POST", "/console/api/generate", by_session(api_jobs.generate)),
    ("GET", "/console/api/status/{job_id}", by_session(status.get_status)),
    ("GET", "/console/api/events/{job_id}", by_session(events.stream_events)),
    ("DELETE", "/console/api/jobs/{job_id}", by_session(api_jobs.cancel_job)),
)


def add_console(app: web.Application, settings: Settings) -> None:
    """What the console's handlers need; its routes are added with the others."""
    app[SESSIONS] = Sessions(settings)
    app[TEMPLATES] = load_templates()
