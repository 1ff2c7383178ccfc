"""The browser client's files: its sources, and the two files that are built from them for pages to load.

`bundle/` has the script as one file, and the style, both also with Brotli; `make client` makes them. If the
sources have changed since, as during development, the sources are served instead.

A name that contains the file's hash may be kept for ever. A gateway of another version, as during a rolling
upgrade, answers with its own file, which browsers may not keep; only a page with `integrity` refuses it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from starlette.responses import JSONResponse

from shared.pages import PageFiles

if TYPE_CHECKING:
    from starlette.responses import Response
    from starlette.types import Scope

FOLDER = Path(__file__).parents[1] / "browser"
BUNDLE = FOLDER / "bundle"
LIST = "manifest.json"  # lists the names that may be kept

# Other sites' pages must be able to load the client, also cross-origin isolated ones.
_ANYWHERE = {"access-control-allow-origin": "*", "cross-origin-resource-policy": "cross-origin"}
_FOREVER = "public, max-age=31536000, immutable"
_NAMED = re.compile(r"(orderbell|toast)-[\w.+-]+-[0-9a-f]{12}\.(js|css)")

logger = logging.getLogger(__name__)


class Built(NamedTuple):
    """A file of the bundle."""

    name: str  # with the version and the hash
    integrity: str  # as the attribute has it


def built_files() -> dict[str, Built]:
    """The built files by the name of their source; only those that match the sources here."""
    try:
        listed = json.loads((BUNDLE / "bundle.json").read_text(encoding="utf-8"))["files"]
    except FileNotFoundError:
        return {}
    found = {}
    for name, file in listed.items():
        if _digest(file["sources"]) == file["digest"]:
            found[name] = Built(file["name"], file["integrity"])
        else:
            logger.warning("%s is older than its sources, which are served instead; run `make client`", name)
    return found


def _digest(sources: list[str]) -> str:
    digest = hashlib.sha256()
    for name in sources:
        path = FOLDER / name
        digest.update(f"{name}\0".encode() + (path.read_bytes() if path.is_file() else b"") + b"\0")
    return digest.hexdigest()


class ClientFiles(PageFiles):
    def __init__(self, built: dict[str, Built]) -> None:
        super().__init__(FOLDER, _ANYWHERE)
        self._built = built
        self._list = {name: {"name": file.name, "integrity": file.integrity} for name, file in built.items()}

    def lookup_path(self, path: str) -> tuple[str, os.stat_result | None]:
        named = _NAMED.fullmatch(path)
        source = f"{named[1]}.{named[2]}" if named else path
        if source not in self._built:
            return super().lookup_path(source)
        found = str(BUNDLE / source)
        return found, os.stat(found)

    async def get_response(self, path: str, scope: Scope) -> Response:
        if path == LIST:
            return JSONResponse(self._list)
        response = await super().get_response(path, scope)
        if any(path == file.name for file in self._built.values()):
            response.headers["cache-control"] = _FOREVER
        return response
