"""Answer on http://127.0.0.1:8000: a page where one drops a song and sees its genres and when they are heard.

    genre serve model=outputs/gtzan/models/resnet

Listen on this machine only, until Ctrl-C. Needs the extra: pip install 'genre[serve]'.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from genre.errors import AudioError, ConfigError
from genre.report.rendering import html_page
from genre.settings import Config
from genre.storage import Location
from ray_jobs.engine import cli, cluster
from ray_jobs.engine.models import find_models

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

_TEMPLATES = Path(cli.__file__).parent / "templates"
_HOST = "127.0.0.1"
_NAMES = (_HOST, "localhost", "[::1]")  # by which browsers of this machine may ask


def run(config: Config) -> None:
    """Serve until interrupted."""
    with serving(config) as address:
        cli.console().print(f"serve: {address} (Ctrl-C ends it)", markup=False)
        while True:
            time.sleep(3600)


@contextmanager
def serving(config: Config) -> Iterator[str]:
    """A running service; yields its address. Raises `ConfigError` when Ray Serve is not installed."""
    try:
        from ray import serve
    except ImportError:
        raise ConfigError("serve needs Ray Serve, which is not installed; pip install 'genre[serve]'") from None
    folders = find_models(config)
    with cluster.connected(config):
        serve.start(
            http_options={"host": _HOST, "port": config.serve.port}, logging_config={"enable_access_log": False}
        )
        deployment = serve.deployment(
            name="tagger",
            num_replicas=config.serve.replicas,
            ray_actor_options={"num_cpus": 1},
            max_ongoing_requests=4,
            max_queued_requests=32,  # more are told to come back later (503)
        )(Service)
        try:
            serve.run(deployment.bind([str(folder) for folder in folders], config), name="genre", route_prefix="/")
            yield f"http://{_HOST}:{config.serve.port}"
        finally:
            serve.shutdown()


class RefusedError(Exception):
    """A request that gets no answer, with its HTTP status and one line that says why."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status, self.reason = status, reason


class Service:
    """`GET /` is the page, `POST /tag` with the bytes of a file as its body answers with JSON."""

    def __init__(self, folders: list[str], config: Config) -> None:
        import torch

        from genre.tagging.tagger import Tagger

        torch.set_num_threads(1)
        self._limits = config.serve
        ports = (f":{config.serve.port}", *([""] if config.serve.port == 80 else []))  # browsers leave 80 out
        self._hosts = {f"{name}{port}" for name in _NAMES for port in ports}
        self._tagger = Tagger.load(
            [Location.of(folder).address for folder in folders], config.min_precision, config.decoding
        )
        self._turn = threading.Lock()  # torch works for one song at a time; decoders queue in their own process
        names = " + ".join(card.architecture for card in self._tagger.cards)
        self._page = page(names, self._tagger.classes, config.serve.max_upload_mb)

    async def __call__(self, request: Request) -> Response:
        from starlette.responses import HTMLResponse, JSONResponse

        try:
            # a page elsewhere can have its own name lead to 127.0.0.1 and then read what we answer (DNS rebinding)
            if request.headers.get("host", "").lower() not in self._hosts:
                raise RefusedError(421, "wrong_host", f"ask for http://{_HOST}:{self._limits.port}, by no other name")
            if request.method == "GET" and request.url.path == "/":
                return HTMLResponse(self._page)
            if request.method != "POST" or request.url.path != "/tag":
                raise RefusedError(404, "not_found", "there are only GET / and POST /tag")
            return JSONResponse(await self._answer(request))
        except RefusedError as refusal:
            content = {"reason": refusal.reason, "message": str(refusal)}
            return JSONResponse(content, status_code=refusal.status, headers={"Connection": "close"})

    async def _answer(self, request: Request) -> dict[str, Any]:
        # browsers send such a header to other sites only after asking them: no other page can make this one work
        name = request.headers.get("x-song-name")
        if name is None:
            raise RefusedError(400, "no_name", "send the file's name, percent-encoded, in the header X-Song-Name")
        with tempfile.NamedTemporaryFile(prefix="genre-upload-") as file:
            try:
                await asyncio.wait_for(self._receive(request, file), self._limits.upload_timeout_s)
            except TimeoutError:
                limit = self._limits.upload_timeout_s
                raise RefusedError(
                    408, "upload_timed_out", f"the upload took longer than serve.upload_timeout_s={limit:g}"
                ) from None
            try:
                answer = await asyncio.get_running_loop().run_in_executor(None, self._tag, file.name)
            except AudioError as error:
                raise RefusedError(422, error.reason.value, " ".join(str(error).split())) from None
        return answer | {"name": unquote(name)[:200]}

    async def _receive(self, request: Request, file: Any) -> None:
        """The body, as far as it is small enough: what a client declares is no promise."""
        limit = self._limits.max_upload_mb * 1e6
        received = int(request.headers.get("content-length") or 0)
        if received <= limit:
            received = 0
            async for piece in request.stream():
                received += len(piece)
                if received > limit:
                    break
                file.write(piece)
        if received > limit:
            raise RefusedError(
                413, "too_large", f"the file is larger than serve.max_upload_mb={self._limits.max_upload_mb:g}"
            )
        file.flush()

    def _tag(self, path: str) -> dict[str, Any]:
        track = self._tagger.decode(path)
        with self._turn:
            tags = asdict(self._tagger.name(path, track))
        return {key: tags[key] for key in ("genre", "genres", "timeline", "seconds")}


def page(model: str, classes: list[str], max_mb: float) -> str:
    """Return the page, which can connect to this service only."""
    return html_page("serve", {"model": model, "classes": classes, "max_mb": max_mb}, _TEMPLATES)


if __name__ == "__main__":
    sys.exit(cli.main("serve"))
