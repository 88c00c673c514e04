"""The page of `review`: a plain web service for one person, without Ray.

    GET  /             the page
    GET  /rows         a page of tracks as JSON, chosen by the parameters state, genre, text, below and start
    GET  /audio/ROW    the file of a track, also parts of it (ranges)
    POST /decide       {"row": 3, "genre": "jazz", "is_new": false}: save the genre of a track
    POST /undo         {}: take back the last decision

Files are named by their row, so that only files of the collection can be read. A refusal is JSON as well.
"""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, get_args

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from genre.corpora import is_audio
from genre.errors import ConfigError, one_line
from genre.report.rendering import html_page
from genre.reviewing.collection import Filter, State
from genre.reviewing.review import GenreNameError, NewGenreError, Review, ReviewedRow
from ray_jobs.pages import TEMPLATES
from ray_jobs.pages.loopback import HEADERS, HOST, RefusedError, check_host
from ray_jobs.pages.remote_audio import remote_audio

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_MOST_BYTES = 10_000  # of a request: a row and the name of a genre
_TYPES = {
    ".aac": "audio/aac", ".aif": "audio/aiff", ".aiff": "audio/aiff", ".flac": "audio/flac", ".m4a": "audio/mp4",
    ".mp3": "audio/mpeg", ".mp4": "audio/mp4", ".oga": "audio/ogg", ".ogg": "audio/ogg", ".opus": "audio/ogg",
    ".wav": "audio/wav", ".wma": "audio/x-ms-wma",
}  # fmt: skip


@contextmanager
def serving(review: Review, port: int, title: str) -> Iterator[str]:
    """Run the service in a thread and yield its address. Raises `ConfigError` when the port is taken."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
    except OSError as error:
        listener.close()
        raise ConfigError(f"review.port={port}: cannot listen there ({one_line(error)}); choose another") from None
    server = uvicorn.Server(
        uvicorn.Config(
            application(review, port, title),
            lifespan="off",
            ws="none",
            log_level="error",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=1,  # a player may hold its connection for minutes
        )
    )
    thread = threading.Thread(target=server.run, args=([listener],), name="review", daemon=True)
    listener.listen()  # so that a request that comes before the thread runs has to wait, and is not refused
    thread.start()
    try:
        yield f"http://{HOST}:{port}"
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


def application(review: Review, port: int, title: str) -> ASGIApp:
    """Return the service as an ASGI application that answers on `port` of this machine only."""
    handlers = _Handlers(review, title)
    routes = [
        Route("/", handlers.page),
        Route("/rows", handlers.rows),
        Route("/audio/{row:int}", handlers.audio),
        Route("/decide", handlers.decide, methods=["POST"]),
        Route("/undo", handlers.undo, methods=["POST"]),
    ]
    refusals: dict[Any, Any] = {RefusedError: _refuse, HTTPException: _refuse_path}
    return _Guard(Starlette(routes=routes, exception_handlers=refusals), port)


class _Guard:
    """Refuses requests that name another host, and adds the headers of `loopback` to every response."""

    def __init__(self, app: ASGIApp, port: int) -> None:
        self._app, self._port = app, port

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        try:
            check_host(Request(scope), self._port)
        except RefusedError as refusal:
            await refusal.response()(scope, receive, send)
            return
        await self._app(scope, receive, send_with_headers)


class _Handlers:
    def __init__(self, review: Review, title: str) -> None:
        self._review = review
        self._turn = threading.Lock()  # requests are handled in several threads
        self._page = html_page("review", {"output": title}, TEMPLATES)

    def page(self, request: Request) -> Response:
        return HTMLResponse(self._page)

    def rows(self, request: Request) -> Response:
        wanted, start = _filter(request)
        with self._turn:
            page = self._review.collection.page(wanted, start)
            content = asdict(page) | self._progress()
        for track in content["tracks"]:
            track["state"] = _problem(track["path"])
        return JSONResponse(content)

    def audio(self, request: Request) -> Response:
        path = self._review.collection.path(self._row(request.path_params["row"]))
        problem = _problem(path)
        if problem:
            raise RefusedError(410, problem, f"{path}: {_PROBLEMS[problem]}")
        media_type = _TYPES.get(os.path.splitext(path)[1].lower(), "application/octet-stream")
        if _is_remote(path):
            return remote_audio(path, request.headers.get("range", ""), media_type)
        return FileResponse(path, media_type=media_type)

    async def decide(self, request: Request) -> Response:
        content = await _json(request)
        row, genre, is_new = (content.get(key) for key in ("row", "genre", "is_new"))
        if not isinstance(row, int) or not isinstance(genre, str):
            raise RefusedError(400, "bad_request", "send the number of a row and the name of a genre")
        return await run_in_threadpool(self._decide, self._row(row), genre, is_new is True)

    async def undo(self, request: Request) -> Response:
        await _json(request)
        return await run_in_threadpool(self._undo)

    def _decide(self, row: int, genre: str, is_new: bool) -> Response:
        path = self._review.collection.path(row)
        if _problem(path) == "gone":
            raise RefusedError(410, "gone", f"{path}: {_PROBLEMS['gone']}")
        with self._turn, _explained():
            return self._answer(self._review.decide(row, genre, is_new))

    def _undo(self) -> Response:
        with self._turn, _explained():
            decision = self._review.undo()
            if decision is None:
                raise RefusedError(409, "nothing_to_undo", "nothing to undo since the start")
            return self._answer(decision)

    def _answer(self, decision: ReviewedRow) -> Response:
        return JSONResponse(asdict(decision) | self._progress())

    def _progress(self) -> dict[str, Any]:
        collection = self._review.collection
        return {"reviewed": self._review.reviewed, "total": len(collection), "genres": collection.genres}

    def _row(self, number: int) -> int:
        if not 0 <= number < len(self._review.collection):
            raise RefusedError(404, "not_found", f"there is no row {number}")
        return number


_PROBLEMS = {
    "gone": "the file is gone or cannot be read; mount its disk, or tag the collection again",
    "no_audio": "not the name of an audio file",
}


def _problem(path: str) -> str:
    """Return why a file cannot be played, a key of `_PROBLEMS`; empty if it can, or if only its storage knows."""
    if not is_audio(os.path.basename(path)):
        return "no_audio"
    return "" if _is_remote(path) or (os.path.isfile(path) and os.access(path, os.R_OK)) else "gone"


def _is_remote(path: str) -> bool:
    return "://" in path


def _filter(request: Request) -> tuple[Filter, int]:
    """Return which tracks are asked for, and the row to start from. Raises `RefusedError`."""
    query = request.query_params
    try:
        below, start = float(query.get("below", "1")), int(query.get("start", "0"))
    except ValueError:
        raise RefusedError(400, "bad_request", "below and start are numbers") from None
    state = query.get("state", "todo")
    if state not in get_args(State):
        raise RefusedError(400, "bad_request", f"state is one of {', '.join(get_args(State))}")
    return Filter(state, query.get("genre", ""), query.get("text", "").strip(), below), start  # type: ignore[arg-type]


async def _json(request: Request) -> dict[str, Any]:
    """Return the body of a request. Other sites cannot send JSON without asking first, which is not allowed."""
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise RefusedError(415, "not_json", "send application/json")
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MOST_BYTES:
            raise RefusedError(413, "too_large", f"the request is larger than {_MOST_BYTES} bytes")
    try:
        content = json.loads(body)
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise RefusedError(400, "bad_request", "the body is not a JSON object")
    return content


@contextmanager
def _explained() -> Iterator[None]:
    """Raise `RefusedError` for the errors of a review."""
    try:
        yield
    except NewGenreError as error:
        raise RefusedError(409, "new_genre", str(error)) from None
    except GenreNameError as error:
        raise RefusedError(422, "bad_genre", str(error)) from None
    except OSError as error:
        raise RefusedError(507, "not_saved", f"not saved: {one_line(error)}") from None


def _refuse(request: Request, refusal: RefusedError) -> Response:
    return refusal.response()


def _refuse_path(request: Request, error: HTTPException) -> Response:
    return RefusedError(error.status_code, "not_found", "unknown path or method").response()
