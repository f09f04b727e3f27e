"""The server of the protocol, and the gate in front of it over HTTP."""

from __future__ import annotations

from urllib.parse import urlsplit

from mcp.server.mcpserver import MCPServer
from mcp.server.transport_security import TransportSecuritySettings
from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from umrgen_client import Refused
from umrgen_client.uploads import MAX_UPLOAD_BYTES
from umrgen_mcp.callers import Callers, bearer_key, find_refusal
from umrgen_mcp.tools import Tools

PATH = "/mcp"
MAX_BODY_BYTES = MAX_UPLOAD_BYTES * 4 // 3 + (64 << 10)
"""A reference as base64, and the request around it."""
SMALL_BODY_BYTES = 64 << 10
"""More than this is held in memory only for a key that the web tier knows."""
MAX_LENGTH_DIGITS = 9
INSTRUCTIONS = (
    "Paint pictures with UMRGEN. generate paints from a prompt and waits; upload_reference keeps an image first when"
    " one is to be followed or changed. list_models says what may be asked for. A job goes on when you stop waiting:"
    " get_status finds it by its job_id."
)
UNASKED = "The service does not answer, so your key cannot be checked. Try again in a while."
_LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")


def build_server(tools: Tools) -> MCPServer:
    """The protocol's server with every tool."""
    server: MCPServer = MCPServer("umrgen", instructions=INSTRUCTIONS)
    for tool in (tools.generate, tools.upload_reference, tools.get_status, tools.cancel, tools.list_models):
        server.add_tool(tool)
    return server


def build_http_app(server: MCPServer, callers: Callers) -> ASGIApp:
    """The server over streamable HTTP at /mcp. No session is kept, so it may be restarted at any moment."""
    app = server.streamable_http_app(
        streamable_http_path=PATH,
        stateless_http=True,
        max_request_body_size=MAX_BODY_BYTES,
        # The gate looks at Origin; which names lead here only the owner's proxy knows.
        transport_security=TransportSecuritySettings(enable_dns_rebinding_protection=False),
    )
    return Gate(app, callers)


class Gate:
    """Refuses who brings no key, large bodies of strangers, streams, and pages of other sites that found a way here."""

    def __init__(self, app: ASGIApp, callers: Callers) -> None:
        self._app = app
        self._callers = callers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI's call."""
        refusal = await self._find_refusal(scope) if scope["type"] == "http" else None
        await (refusal or self._app)(scope, receive, send)

    async def _find_refusal(self, scope: Scope) -> JSONResponse | None:
        headers = Headers(scope=scope)
        if not is_local_origin(headers.get("origin")):
            return JSONResponse({"error": "Pages of this origin may not call this server."}, 403)
        if scope["method"] != "POST":  # no session is kept: there is nothing to listen to, and nothing to end
            return JSONResponse({"error": "Send your calls with POST."}, 405, {"Allow": "POST"})
        if not bearer_key(headers.get("authorization", "")):
            return _refuse(401, "Send your UMRGEN key: Authorization: Bearer KEY")
        if is_small(headers):
            return None  # the tool's own call finds out
        error = await find_refusal(self._callers, headers, (scope.get("client") or ("",))[0])
        if error is None:
            return None
        # What stands between here and the service, its address too, is no stranger's business.
        return _refuse(error.status, error.message) if isinstance(error, Refused) else _refuse(503, UNASKED)


def is_small(headers: Headers) -> bool:
    """Whether a body is small by its declared length. In chunks it may be of any, whatever was declared beside them."""
    length = headers.get("content-length", "")
    plain = "transfer-encoding" not in headers and length.isdecimal() and len(length) <= MAX_LENGTH_DIGITS
    return plain and int(length) <= SMALL_BODY_BYTES


def _refuse(status: int, message: str) -> JSONResponse:
    return JSONResponse({"error": message}, status, {"WWW-Authenticate": "Bearer"} if status == 401 else None)


def is_local_origin(origin: str | None) -> bool:
    """Whether a request comes from no page at all, or from one of this machine."""
    if origin is None:
        return True
    try:
        return urlsplit(origin).hostname in _LOCAL_HOSTS
    except ValueError:
        return False
