from __future__ import annotations

from sender.webhooks.signature import signed_headers
from shared.webhook_secrets import parse_webhook_secret


def test_signature_is_the_one_of_the_standards_own_example() -> None:
    """https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md"""
    key = parse_webhook_secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    headers = signed_headers([key], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert headers == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


def test_each_key_signs_and_the_first_comes_first() -> None:
    one, other = b"1" * 24, b"2" * 24
    alone = [signed_headers([key], "id", 1, b"{}")["webhook-signature"] for key in (one, other)]
    assert signed_headers([one, other], "id", 1, b"{}")["webhook-signature"] == " ".join(alone)
