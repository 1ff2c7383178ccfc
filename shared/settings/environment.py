"""From environment variables and files to values.

A secret may also be given as a file: `ORDERBELL_API_KEYS_FILE=/run/secrets/api_keys`. What surrounds a value
(spaces, line ends, the byte order mark that Windows' editors write) never counts, in a file or in a variable.
Quotation marks around it are a fault: Docker's `--env-file` keeps them, and a key with them opens nothing.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import model_validator
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

PREFIX = "ORDERBELL_"
CommaSeparated = Annotated[tuple[str, ...], NoDecode]


class FromEnvironment(BaseSettings):
    model_config = SettingsConfigDict(
        env_prefix=PREFIX, frozen=True, extra="ignore", hide_input_in_errors=True, env_ignore_empty=True
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, _FileSource(settings_cls)

    @model_validator(mode="before")
    @classmethod
    def _trim(cls, values: Any) -> Any:
        return cleaned(values) if isinstance(values, dict) else values


class _FileSource(PydanticBaseSettingsSource):
    """`<NAME>_FILE` names a file that holds the value."""

    def get_field_value(self, field: object, field_name: str) -> tuple[Any, str, bool]:
        raise NotImplementedError("unused: __call__ reads all fields at once")

    def __call__(self) -> dict[str, Any]:
        paths = {
            name: os.environ.get(f"{PREFIX}{name.upper()}_FILE") for name in self.settings_cls.model_fields
        }
        return {name: _read(path) for name, path in paths.items() if path}


@dataclass(frozen=True)
class Unusable:
    """Stands for a value that can't be had. No field accepts it, so it is reported among all faults."""

    why: str
    file: bool = False


def _read(path: str) -> str | Unusable:
    try:
        return Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        why = f"cannot read {path}: it is not UTF-8 text"
    except OSError as error:
        why = f"cannot read {path}: {error.strerror}"
    except ValueError as error:  # a NUL in the path
        why = f"cannot read it: {error}"
    return Unusable(why, file=True)


def cleaned(values: dict[str, Any]) -> dict[str, Any]:
    return {name: _without_quotes(_unicode(_trimmed(value))) for name, value in values.items()}


def _unicode(value: Any) -> Any:
    """Python keeps a variable's bytes that are not UTF-8 as lone surrogates, which fail wherever they go."""
    is_unicode = not isinstance(value, str) or value.isascii() or _SURROGATE.search(value) is None
    return value if is_unicode else Unusable("it is not UTF-8 text")


_SURROGATE = re.compile("[\ud800-\udfff]")


def _without_quotes(value: Any) -> Any:
    if isinstance(value, str) and len(value) > 1 and value[0] == value[-1] and value[0] in "\"'`":
        return Unusable("remove the quotation marks around it: here they would belong to the value")
    return value


def _trimmed(value: Any) -> Any:
    return value.strip("\ufeff \t\r\n") if isinstance(value, str) else value


def split_list(text: str) -> list[str]:
    return [part.strip() for part in re.split(r"[,\r\n]", text) if part.strip()]
