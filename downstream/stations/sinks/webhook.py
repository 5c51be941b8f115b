"""Signals as POSTs of JSON, signed so that the receiver knows from whom they are."""

import hashlib
import hmac
import time
import urllib.request
from http.client import HTTPException
from urllib.error import HTTPError

from downstream.service.watch.webhook import NoRedirect
from downstream.stations.contract import NotDelivered, Refused, Sink, Surroundings
from downstream.stations.signal import Signal
from downstream.stations.sinks.config import Webhook

# The receiver has understood, and will never take it; anything else may pass: a wrong token is put right.
NEVER = (400, 413, 415, 422)
# It has it already.
DUPLICATE = 409


class WebhookSink(Sink):
    """Fulfills the contract. With a secret each POST has X-Heldout-Timestamp and X-Heldout-Signature."""

    def __init__(self, options: Webhook, surroundings: Surroundings) -> None:
        self.options = options
        self._secret = options.secret.value().encode() if options.secret else None
        self._opener = urllib.request.build_opener(NoRedirect)

    def send(self, signal: Signal) -> None:
        body = signal.to_json().encode()
        headers = {"Content-Type": "application/json", "Idempotency-Key": signal.id}
        if self._secret is not None:
            moment = str(int(time.time()))
            headers |= {"X-Heldout-Timestamp": moment, "X-Heldout-Signature": signature(self._secret, moment, body)}
        asked = urllib.request.Request(self.options.url, body, headers, method="POST")
        try:
            with self._opener.open(asked, timeout=self.options.timeout_s):
                return
        except HTTPError as error:
            error.close()
            if error.code == DUPLICATE:
                return
            if error.code in NEVER:
                raise Refused(f"it answered {error.code}") from None
            raise NotDelivered(f"it answered {error.code}") from None
        except (OSError, ValueError, HTTPException) as error:  # without the address, which may hold a secret
            raise NotDelivered(f"it does not answer ({type(error).__name__})") from None


def signature(secret: bytes, moment: str, body: bytes) -> str:
    """Of the moment too, so that nobody can send an old one again unnoticed."""
    return "sha256=" + hmac.new(secret, moment.encode() + b"." + body, hashlib.sha256).hexdigest()
