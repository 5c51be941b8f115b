"""Who may ask: the right host name, no other web site's pages, the token if there is one."""

import hmac
import ipaddress
from collections.abc import Collection, Sequence
from typing import Any

from fastapi import Depends, Request
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from downstream.service.users import BY_TOKEN, LOCAL, Right, User, refusal, user_of

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")
# What may be asked without the token: the page, which has no data in it, and whether the service is alive.
OPEN_PATHS = ("/health", "/api/health")
GUARDED_PATHS = ("/api/", "/metrics", "/openapi.json")
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "font-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
}


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Access:
    """Middleware: 400 for a host name that is not in `hosts` (which stops pages that had their name point here), 403
    for a request from another site's page, 401 without the token, or that of a user, if there is any."""

    def __init__(self, app: ASGIApp, hosts: Collection[str], token: str | None, users: Sequence[User] = ()) -> None:
        self.app, self.hosts, self.token, self.users = app, frozenset(hosts), token, users

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                headers["Cache-Control"] = "no-cache" if not _is_guarded(scope["path"]) else "no-store"
            await send(message)

        headers = Headers(scope=scope)
        user = self._user(headers)
        scope.setdefault("state", {})["user"] = user
        problem = self._problem(scope["path"], scope["scheme"], headers, user)
        await (problem or self.app)(scope, receive, with_headers)

    def _user(self, headers: Headers) -> User | None:
        """Who asks; none where a token is wanted and it is nobody's."""
        if self.token is None and not self.users:
            return LOCAL
        kind, _, given = headers.get("authorization", "").partition(" ")
        if kind.lower() != "bearer":
            return None
        given = given.strip()
        if not given:
            return None
        if self.token is not None and hmac.compare_digest(given.encode(), self.token.encode()):
            return BY_TOKEN
        return user_of(given, self.users)

    def _problem(self, path: str, scheme: str, headers: Headers, user: User | None) -> JSONResponse | None:
        host = headers.get("host", "")
        if "*" not in self.hosts and _without_port(host).lower() not in self.hosts:
            return _error(400, "this host name is not served here: start the service with --allowed-hosts NAME.")
        origin, site = headers.get("origin"), headers.get("sec-fetch-site")
        # Of a host beyond this machine a web server may have taken the TLS off, and not every one says so.
        schemes = {scheme} if _without_port(host).lower() in LOOPBACK_NAMES else {scheme, "https"}
        is_foreign = origin is not None and origin.lower() not in {f"{name}://{host.lower()}" for name in schemes}
        if is_foreign or (site == "cross-site" and _is_guarded(path)):
            return _error(403, "pages of other sites may not ask here.")
        if user is not None or not _is_guarded(path) or path in OPEN_PATHS:
            return None
        return _error(401, "send the token: Authorization: Bearer TOKEN.", {"WWW-Authenticate": "Bearer"})


def needs(right: Right) -> Any:
    """A dependency of an endpoint: 403 for a user whose role has not this right."""

    def check(request: Request) -> None:
        user: User = request.state.user
        if right not in user.rights:
            raise HTTPException(403, refusal(user, right))

    check.right = right
    return Depends(check)


def _is_guarded(path: str) -> bool:
    return path.startswith(GUARDED_PATHS)


def _without_port(host: str) -> str:
    return host.partition("]")[0] + "]" if host.startswith("[") else host.partition(":")[0]


def _error(status: int, detail: str, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"detail": detail}, status, headers)
