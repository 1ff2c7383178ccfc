"""Whether Docker can serve a test: an engine that answers, and an image that it has or can get."""

from __future__ import annotations

import contextlib
import functools
import gc
import warnings
from typing import TYPE_CHECKING

import docker
from docker.errors import DockerException, ImageNotFound
from requests.exceptions import RequestException

if TYPE_CHECKING:
    from docker import DockerClient

_SECONDS = 5  # for the engine, and for the engine to ask the registry; the pull itself takes what it takes


@functools.cache
def can_have(image: str) -> bool:
    """Whether the engine has the image or its registry answers."""
    with warnings.catch_warnings():
        # Where no engine answers, docker's client forgets to close its socket.
        warnings.simplefilter("ignore", ResourceWarning)
        answer = _can_have(image)
        gc.collect()
    return answer


def _can_have(image: str) -> bool:
    try:
        with contextlib.closing(docker.from_env(timeout=_SECONDS)) as client:
            client.ping()
            return _has(client, image) or bool(client.images.get_registry_data(image))
    except (DockerException, RequestException):
        return False


def _has(client: DockerClient, image: str) -> bool:
    try:
        return bool(client.images.get(image))
    except ImageNotFound:
        return False
