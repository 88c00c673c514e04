"""Credentials in addresses, such as `s3://KEY:SECRET@bucket/music`: never printed, and never written to a report.

pyarrow accepts `s3://KEY:SECRET@BUCKET`, `abfss://CONTAINER:KEY@ACCOUNT` and, for Azure, a `client_secret` behind the
question mark. The other names behind it are those that people try, which an error message would repeat.
"""

from __future__ import annotations

import re

HIDDEN = "***"
# A secret may hold slashes that were not quoted. A port, as in http://host:9000/a@b, is none.
_USER = re.compile(r"\b([A-Za-z][\w+.-]*://)([^\s/@:?#'\",]*):(?!\d+/)[^\s@'\"]*@")
_PARAMETER = re.compile(
    r"([?&][^\s=&'\"]*(?:key|secret|token|passw|credentials|signature|\bsig)[^\s=&'\"]*=)[^\s&'\"]+", re.I
)


def without_credentials(text: str) -> str:
    """Return `text` with *** in place of the credentials in its addresses. The name of an Azure container stays."""
    if "://" not in text:
        return text
    return _PARAMETER.sub(rf"\1{HIDDEN}", _USER.sub(_hidden_user, text))


def _hidden_user(match: re.Match[str]) -> str:
    scheme, user = match.groups()
    container = f"{user}:" if scheme.lower().startswith("abfs") else ""
    return f"{scheme}{container}{HIDDEN}@"
