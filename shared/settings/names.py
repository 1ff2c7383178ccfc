"""Which variables are settings.

What Kubernetes and Docker's links set for a service whose name begins with `orderbell`
(`ORDERBELL_PORT=tcp://…`) is ignored; any other name with our prefix that is not a setting is a fault, or a
typing error would be a silent default.
"""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING

from shared.settings.environment import PREFIX
from shared.settings.receiver import ReceiverSettings
from shared.settings.sender import SenderSettings

if TYPE_CHECKING:
    from collections.abc import Mapping

_FOR_TESTS = PREFIX + "TEST_"  # read by our tests alone
# https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables and
# https://docs.docker.com/engine/network/links/#environment-variables
_SERVICE_LINK = re.compile(
    r"ORDERBELL(_[A-Z0-9_]+)?_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?"
    r"|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|ADDR|START|END|PORT|PORT_START|PORT_END))?)"
)
# These only with such a value.
_LINK_VALUES = (
    (re.compile(r"ORDERBELL(_[A-Z0-9_]+)?_PORT"), re.compile(r"[a-z]+://.*")),
    (re.compile(r"ORDERBELL(_[A-Z0-9_]+)?_NAME"), re.compile(r"/.+/.+")),
    (re.compile(r"ORDERBELL(_[A-Z0-9_]+)?_ENV_.+"), re.compile(r".*", re.DOTALL)),
)


def known_names() -> frozenset[str]:
    """Every environment variable that some part of Orderbell reads."""
    fields = {*SenderSettings.model_fields, *ReceiverSettings.model_fields}
    names = {PREFIX + field.upper() for field in fields}
    return frozenset(names | {f"{name}_FILE" for name in names})


def unknown_names(environment: Mapping[str, str]) -> list[str]:
    known = known_names()
    ours = [name for name in environment if name.startswith(PREFIX) and not name.startswith(_FOR_TESTS)]
    return [
        _unknown_line(name, known)
        for name in sorted(ours)
        if name not in known and not _is_service_link(name, environment[name])
    ]


def _is_service_link(name: str, value: str) -> bool:
    return bool(_SERVICE_LINK.fullmatch(name)) or any(
        names.fullmatch(name) and values.fullmatch(value) for names, values in _LINK_VALUES
    )


def _unknown_line(name: str, known: frozenset[str]) -> str:
    # Without the common prefix, or all would look alike.
    close = difflib.get_close_matches(
        name.removeprefix(PREFIX), [one.removeprefix(PREFIX) for one in known], n=1
    )
    return f"{name}: no such setting" + (f"; did you mean {PREFIX}{close[0]}?" if close else "")
