"""The keys of the sender's API: each opens it, and nothing else does."""

from __future__ import annotations

from pydantic import SecretStr

from sender.http.api_keys import ApiKeys


def test_each_key_is_accepted_and_no_other() -> None:
    keys = ApiKeys([SecretStr("first-key-of-ours"), SecretStr("second-key-of-ours")])
    assert keys.accept("first-key-of-ours")
    assert keys.accept("second-key-of-ours")
    for wrong in (
        "",
        "first-key-of-our",
        "first-key-of-ours ",
        "first-key-of-ours,second-key-of-ours",
        "é",
        "\udcff",
    ):
        assert not keys.accept(wrong)
