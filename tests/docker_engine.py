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
        # If no engine answers, docker's client forgets to close its socket.
        warnings.simplefilter("ignore", ResourceWarning)
        answer = _can_have(image)
        gc.collect()
    return answer


def _can_have(image: str) -> bool:
    try:
        with contextlib.closing(docker.from_env(timeout=_SECONDS)) as client:
            client.ping()
            return all(_can_get(client, name) for name in (image, *_reaper()))
    except (DockerException, RequestException):
        return False


def _can_get(client: DockerClient, image: str) -> bool:
    try:
        return bool(client.images.get(image))
    except ImageNotFound:
        return bool(client.images.get_registry_data(image))


def _reaper() -> list[str]:
    """The image by which testcontainers ends containers after a killed run."""
    from testcontainers.core.config import testcontainers_config

    return [] if testcontainers_config.ryuk_disabled else [testcontainers_config.ryuk_image]
