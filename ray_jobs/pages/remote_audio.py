"""A file of an object store for a player: the part that it asks for."""

from __future__ import annotations

import re

from starlette.responses import Response

from genre.errors import ArtifactError, one_line
from genre.storage import Location
from ray_jobs.pages.loopback import RefusedError

_MOST_BYTES = 2 << 20  # of a part; a player asks for the next one, and an error of the storage has a message
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


def remote_audio(address: str, wanted: str, media_type: str) -> Response:
    """Return the file at `address`; if the header Range `wanted` names a part, at most its first 2 MiB.

    The response may be shorter than the part that a player asks for. Raises `RefusedError` for a file
    that cannot be read, and for a part beyond its end.
    """
    try:
        file = Location.of(address)
        with file.filesystem.open_input_file(file.path) as stream:
            size = stream.size()
            part = _part(wanted, size)
            if part is None:
                return Response(stream.read(), media_type=media_type, headers={"Accept-Ranges": "bytes"})
            first, last = part
            content = stream.read_at(last - first + 1, first)
    except (OSError, ArtifactError) as error:
        raise RefusedError(410, "gone", f"{address} cannot be read ({one_line(error)}); check access to it") from None
    headers = {"Accept-Ranges": "bytes", "Content-Range": f"bytes {first}-{last}/{size}"}
    return Response(content, 206, headers, media_type)


def _part(wanted: str, size: int) -> tuple[int, int] | None:
    """Return the first and last byte to send; None for the complete file, as for several parts at once."""
    match = _RANGE.fullmatch(wanted.strip())
    if match is None or not any(match.groups()):
        return None
    start, end = match.groups()
    first = int(start) if start else max(0, size - int(end))
    last = int(end) if start and end else size - 1
    if first >= size or last < first:
        raise RefusedError(416, "bad_request", f"the file has {size} bytes")
    return first, min(last, size - 1, first + _MOST_BYTES - 1)
