"""An identity provider for tests: an HTTP server with keys of its own that signs what it is told.

It counts how often its keys are asked for; it can take new keys, and can be told to fail.
"""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

CLIENT = "flashplane-console"


class Issuer:
    """Signs with RSA as `rsa-1`, and with an elliptic curve as `ec-1`."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.asked = 0
        self.fails = False
        self.calls_itself = address
        self._keys: dict[str, Any] = {}
        self._published: list[dict[str, Any]] = []
        self.take_key("rsa-1")
        self.take_key("ec-1")

    def take_key(self, kid: str) -> None:
        """Make a key and publish it."""
        if kid.startswith("rsa"):
            key: Any = rsa.generate_private_key(public_exponent=65537, key_size=2048)
            told = RSAAlgorithm.to_jwk(key.public_key(), as_dict=True)
        else:
            key = ec.generate_private_key(ec.SECP256R1())
            told = ECAlgorithm.to_jwk(key.public_key(), as_dict=True)
        self._keys[kid] = key
        self._published.append({**told, "kid": kid, "use": "sig"})

    def withdraw_key(self, kid: str) -> None:
        """Publish a key no more; it can still be signed with."""
        self._published = [it for it in self._published if it["kid"] != kid]

    def claims(self, subject: str = "ada", **others: object) -> dict[str, object]:
        """Right claims, but for `others`; one that is None is left out."""
        now = int(time.time())
        right = {
            "iss": self.address,
            "sub": subject,
            "aud": CLIENT,
            "iat": now,
            "exp": now + 600,
            "email": f"{subject}@example.com",
            "email_verified": True,
            "name": subject.title(),
        }
        return {name: it for name, it in (right | others).items() if it is not None}

    def token(self, subject: str = "ada", *, kid: str = "rsa-1", **others: object) -> str:
        """A token of `claims`, signed with the key `kid`."""
        algorithm = "RS256" if kid.startswith("rsa") else "ES256"
        return jwt.encode(
            self.claims(subject, **others), self._keys[kid], algorithm, headers={"kid": kid}
        )

    def page(self, path: str) -> dict[str, object] | None:
        if self.fails:
            return None
        if path == "/.well-known/openid-configuration":
            return {"issuer": self.calls_itself, "jwks_uri": f"{self.address}/keys"}
        self.asked += 1
        return {"keys": self._published} if path == "/keys" else None


@contextmanager
def running_issuer() -> Iterator[Issuer]:
    """An issuer on a port of this machine."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            page = issuer.page(self.path)
            content = json.dumps(page).encode()
            self.send_response(200 if page else 500)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    issuer = Issuer(f"http://127.0.0.1:{server.server_port}")
    thread = Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield issuer
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
