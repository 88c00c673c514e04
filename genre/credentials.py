"""Credentials in addresses, such as `s3://KEY:SECRET@bucket/music`: never printed, and never written to a report.

pyarrow accepts `s3://KEY:SECRET@BUCKET`, `abfss://CONTAINER:KEY@ACCOUNT` and, for Azure, a `client_secret` behind the
question mark. The other names behind it are those that people try, which an error message would repeat.
"""

from __future__ import annotations

import re

HIDDEN = "***"
_ADDRESS = re.compile(r"\b([A-Za-z][\w+.-]*://)([^\s'\"]*)")
_PARAMETER = re.compile(r"([^=&]*(?:key|secret|token|passw|credentials|signature|\bsig)[^=&]*=)[^&]+", re.I)
_PORT = re.compile(r":\d{1,5}(/|$)")


def without_credentials(text: str) -> str:
    """Return `text` with *** in place of the credentials in its addresses. The name of an Azure container stays."""
    return _ADDRESS.sub(_hidden, text) if "://" in text else text


def for_environment(address: str) -> str:
    """Return an address without the key and the secret before its @: it opens with those of the environment."""
    return without_credentials(address).replace(f":{HIDDEN}@", "@").replace(f"{HIDDEN}@", "")


def _hidden(match: re.Match[str]) -> str:
    scheme, rest = match.groups()
    place, mark, parameters = rest.partition("?")
    user, at, below = place.rpartition("@")  # a secret may hold slashes that were not quoted
    name, colon, secret = user.partition(":")
    is_port = scheme.lower().startswith("http") and _PORT.match(colon + secret)
    if at and colon and "/" not in name and not is_port:
        container = f"{name}:" if scheme.lower().startswith("abfs") else ""
        place = f"{container}{HIDDEN}@{below}"
    return scheme + place + mark + _PARAMETER.sub(rf"\1{HIDDEN}", parameters)
