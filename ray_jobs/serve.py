"""Serve a page on http://127.0.0.1:8000 that shows the genres of a song dropped on it, overall and over time.

    genre serve model=outputs/gtzan/models/resnet

Only this machine can connect. Ctrl-C ends the service. Needs `pip install '.[serve]'`.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from genre.errors import AudioError, ConfigError, install
from genre.report.rendering import html_page
from genre.settings import Config, DecodingSettings, ServeSettings
from ray_jobs.engine import cli, cluster
from ray_jobs.engine.models import find_models
from ray_jobs.pages import TEMPLATES
from ray_jobs.pages.loopback import HEADERS, HOST, RefusedError, check_host

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response


def run(config: Config) -> None:
    """Serve until interrupted."""
    with serving(config) as address:
        cli.say(f"serve: {address} (Ctrl-C ends it)")
        with suppress(KeyboardInterrupt):
            threading.Event().wait()
    cli.say("serve: ended")


@contextmanager
def serving(config: Config) -> Iterator[str]:
    """Run the service and yield its address. Raises `ConfigError` when Ray Serve is not installed."""
    try:
        from ray import serve
    except ImportError:
        raise ConfigError(f"serve needs Ray Serve, which is not installed; {install('serve')}") from None
    logging.getLogger("ray.serve").setLevel(logging.ERROR)  # importing it sets another level
    folders = find_models(config)
    with cluster.connected(config.cluster, config.output):
        serve.start(http_options={"host": HOST, "port": config.serve.port}, logging_config={"enable_access_log": False})
        deployment = serve.deployment(
            name="tagger",
            num_replicas=config.serve.replicas,
            ray_actor_options={"num_cpus": 1},
            max_ongoing_requests=4,
            max_queued_requests=32,  # further requests get status 503
        )(Service)
        try:
            serve.run(
                deployment.bind(
                    [str(folder) for folder in folders], config.serve, config.min_precision, config.decoding
                ),
                name="genre",
                route_prefix="/",
            )
            yield f"http://{HOST}:{config.serve.port}"
        finally:
            serve.shutdown()


class Service:
    """Handles `GET /`, which returns the page, and `POST /tag`, which returns the tags of a file's bytes as JSON."""

    def __init__(
        self, folders: list[str], settings: ServeSettings, min_precision: float, decoding: DecodingSettings
    ) -> None:
        import torch

        from genre.tagging.tagger import Tagger

        torch.set_num_threads(1)
        self._limits = settings
        self._tagger = Tagger.load(folders, min_precision, decoding)
        self._turn = threading.Lock()  # the network runs for one song at a time; decoding has its own process and queue
        names = " + ".join(card.architecture for card in self._tagger.cards)
        self._page = page(names, self._tagger.classes, settings.max_upload_mb)

    async def __call__(self, request: Request) -> Response:
        from starlette.responses import HTMLResponse, JSONResponse

        try:
            check_host(request, self._limits.port)
            if request.method == "GET" and request.url.path == "/":
                return HTMLResponse(self._page, headers=HEADERS)
            if request.method != "POST" or request.url.path != "/tag":
                raise RefusedError(404, "not_found", "unknown path; use GET / or POST /tag")
            return JSONResponse(await self._answer(request), headers=HEADERS)
        except RefusedError as refusal:
            return refusal.response()

    async def _answer(self, request: Request) -> dict[str, Any]:
        # browsers send such a header to another site only after a preflight request, which is refused: no other page
        # can use this service
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
                raise RefusedError(422, error.reason.value, str(error)) from None
        return answer | {"name": unquote(name)[:200]}

    async def _receive(self, request: Request, file: Any) -> None:
        """Write the body to `file`. Raises `RefusedError` once it is too large, whatever size the client declared."""
        limit = self._limits.max_upload_mb * 1e6
        received = int(request.headers.get("content-length") or 0)
        if received <= limit:
            received = 0
            async for chunk in request.stream():
                received += len(chunk)
                if received > limit:
                    break
                file.write(chunk)
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
    return html_page("serve", {"model": model, "classes": classes, "max_mb": max_mb}, TEMPLATES)


if __name__ == "__main__":
    sys.exit(cli.main("serve"))
