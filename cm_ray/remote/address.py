"""Addresses of storage, such as s3://bucket/folder, and what can be done there."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlsplit

from cm_ray.errors import UserError

WRITABLE = ("s3", "gs", "az")
"""Schemes of the object stores that can be written."""
READABLE = (*WRITABLE, "http", "https")
_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]+):/+")
"""The beginning of s3://bucket/folder; `Path` makes one slash of the two."""


def checked_address(place: str | Path, *, write: bool) -> str:
    """Return an address in its usual form, without a slash at its end.

    write: refuse addresses that can only be read. Raises UserError when the scheme is not known, or when the
    address has no bucket, a password, or a query.
    """
    text = _SCHEME.sub(lambda found: f"{found[1].lower()}://", str(place))
    parts, schemes = urlsplit(text), WRITABLE if write else READABLE
    if parts.scheme not in schemes:
        known = ", ".join(f"{scheme}://" for scheme in schemes)
        can = "written" if write and parts.scheme in READABLE else "used"
        raise UserError(f"{text} cannot be {can}: give a folder, or an address that begins with {known}.")
    if not parts.netloc:
        raise UserError(f"{text} names no bucket: give {parts.scheme}://BUCKET/FOLDER.")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise UserError(
            f"{parts.scheme}://{parts.hostname}{parts.path} has a password, a query or a fragment in its "
            "address: give the credentials by environment variables."
        )
    if ".." in parts.path.split("/"):
        raise UserError(f"{text} leads through ..: give the address itself.")
    return text.rstrip("/")


def joined(address: str, name: str) -> str:
    """Return the address of something below an address."""
    return f"{address.rstrip('/')}/{name}"
