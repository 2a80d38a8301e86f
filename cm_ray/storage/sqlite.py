"""Addresses of SQLite databases, by SQLAlchemy's URL class: any folder can have one, whatever its name."""

from __future__ import annotations

from pathlib import Path


def sqlite_address(file: Path) -> str:
    """Return the address of the database in a file, ``sqlite:////folder/name.db``.

    Where the path has characters that an address cannot have, the address names the driver as well: of
    addresses that begin with ``sqlite:///`` MLflow makes the folder that is written there.
    """
    from sqlalchemy.engine import URL

    path = str(file.absolute())
    address = URL.create("sqlite", database=path)
    if not address.render_as_string(hide_password=False).endswith(f"/{path}"):
        address = address.set(drivername="sqlite+pysqlite")
    return address.render_as_string(hide_password=False)


def sqlite_file(address: str) -> Path | None:
    """Return the file of the database at an address; None when it is another kind of database or none."""
    if not address.startswith("sqlite"):
        return None
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        found = make_url(address).database
    except ArgumentError:
        return None
    return Path(found) if found else None
