"""What the services of jobs on this machine have in common: which requests are accepted, and how a request is refused.

Another site can resolve its own host name to 127.0.0.1 (DNS rebinding) and would then read the answers, so requests to
other host names are refused. It can also send requests without reading the answers. Browsers ask for permission before
they send JSON or an unusual header, and no handler gives it, so a request that changes something must have one of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

HOST = "127.0.0.1"
_NAMES = (HOST, "localhost", "[::1]")  # host names under which a service answers
# other sites can neither embed nor frame what a service returns, and no browser guesses another type
HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": "frame-ancestors 'none'",  # the page declares the rest of its policy
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class RefusedError(Exception):
    """A refused request: its HTTP status, a reason code and a message of one line."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status, self.reason = status, reason

    def response(self) -> Response:
        """Return the refusal as JSON."""
        from starlette.responses import JSONResponse

        content = {"reason": self.reason, "message": str(self)}
        return JSONResponse(content, status_code=self.status, headers=HEADERS | {"Connection": "close"})


def check_host(request: Request, port: int) -> None:
    """Raise `RefusedError` unless the header Host names this machine and `port`."""
    ends = (f":{port}", *([""] if port == 80 else []))  # browsers omit port 80
    if request.headers.get("host", "").lower() not in {f"{name}{end}" for name in _NAMES for end in ends}:
        raise RefusedError(421, "wrong_host", f"wrong host name; use http://{HOST}:{port}")
