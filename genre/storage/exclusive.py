"""Create a file only where there is none, in one step that no other process can come between.

A local file is opened with O_EXCL. An object of S3 is put with `If-None-Match: *`, which pyarrow cannot send. boto3
sends it where it is installed, as on every cluster on AWS, whose autoscaler needs it.
"""

from __future__ import annotations

import os
from typing import Any

from pyarrow import fs

from genre.storage.location import Location

_CONFLICTS = (409, 412)  # another request created the object at the same time, or earlier


def create(file: Location, content: bytes) -> bool:
    """Write a file that does not exist yet. Return False where that takes more than one step; nothing is written then.

    Raises `FileExistsError`, and for a local file other errors of the system.
    """
    if file.is_local:
        _create_local(file.path, content)
        return True
    if isinstance(file.filesystem, fs.S3FileSystem):
        return _create_object(file.filesystem, file.path, content)
    return False


def _create_local(path: str, content: bytes) -> None:
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
    except OSError:  # the disk is full: an empty file would stay
        os.unlink(path)
        raise


def _create_object(filesystem: fs.S3FileSystem, path: str, content: bytes) -> bool:
    """Put an object. A server without conditions, or one that boto3 does not reach, is left to pyarrow."""
    try:
        import boto3
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError, ClientError
    except ModuleNotFoundError:
        return False
    bucket, _, key = path.partition("/")
    # seconds; checksums would be sent in an encoding that not every server knows
    config = Config(
        connect_timeout=5, read_timeout=10, retries={"max_attempts": 2}, request_checksum_calculation="when_required"
    )
    try:
        client = boto3.client("s3", config=config, **_connection(filesystem))
        client.put_object(Bucket=bucket, Key=key, Body=content, IfNoneMatch="*")
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] in _CONFLICTS:
            raise FileExistsError(path) from None
        return False
    except (BotoCoreError, ValueError):  # no credentials, no connection, or an address that only pyarrow takes
        return False
    return True


def _connection(filesystem: fs.S3FileSystem) -> dict[str, Any]:
    """Return the arguments with which boto3 reaches the server of a file system."""
    _, (options,) = filesystem.__reduce__()
    endpoint = options["endpoint_override"]
    if endpoint and "://" not in endpoint:
        endpoint = f"{options['scheme']}://{endpoint}"
    return {
        "region_name": options["region"] or None,
        "endpoint_url": endpoint or None,
        "aws_access_key_id": options["access_key"],
        "aws_secret_access_key": options["secret_key"],
        "aws_session_token": options["session_token"],
    }
