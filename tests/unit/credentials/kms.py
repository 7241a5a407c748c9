"""Key management services as they answer over HTTP, small: Vault's transit engine and AWS KMS.

Both really encrypt, with a key that never leaves them, so that what was wrapped for one record or by one key
does not unwrap for another.
"""

import base64
import json
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

Answer = tuple[int, dict[str, Any]]


class Kms:
    """Keys by name. `down` answers 503 to everything; `requests` counts."""

    def __init__(self, *names: str) -> None:
        self.keys = {name: AESGCM(secrets.token_bytes(32)) for name in names}
        self.down = False
        self.requests = 0
        self.url = ""

    def answer(self, path: str, headers: Any, body: dict[str, Any]) -> Answer:
        raise NotImplementedError

    def encrypt(self, name: str, plaintext: str, bound_to: bytes) -> str:
        nonce = secrets.token_bytes(12)
        octets = self.keys[name].encrypt(nonce, base64.b64decode(plaintext), bound_to)
        return base64.b64encode(nonce + octets).decode()

    def decrypt(self, name: str, ciphertext: str, bound_to: bytes) -> str:
        octets = base64.b64decode(ciphertext)
        return base64.b64encode(self.keys[name].decrypt(octets[:12], octets[12:], bound_to)).decode()

    @contextmanager
    def serving(self) -> Iterator["Kms"]:
        kms = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                kms.requests += 1
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])) or b"{}")
                status, answer = (503, {}) if kms.down else kms.answer(self.path, self.headers, body)
                octets = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(octets)))
                self.end_headers()
                self.wfile.write(octets)

            do_PUT = do_POST

            def log_message(self, *_: object) -> None:
                """Not on standard error."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        self.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield self
        finally:
            server.shutdown()
            thread.join()
            server.server_close()


class Transit(Kms):
    """HashiCorp Vault: `POST /v1/<mount>/{encrypt,decrypt}/<key>`, mount `transit`."""

    token = "s.first"

    def answer(self, path: str, headers: Any, body: dict[str, Any]) -> Answer:
        _, version, mount, verb, name = path.split("/")
        if headers["X-Vault-Token"] != self.token:
            return 403, {"errors": ["permission denied"]}
        if (version, mount) != ("v1", "transit") or name not in self.keys:
            return 404, {"errors": ["no handler for route"]}
        bound_to = base64.b64decode(body["associated_data"])
        try:
            if verb == "encrypt":
                text = self.encrypt(name, body["plaintext"], bound_to)
                return 200, {"data": {"ciphertext": f"vault:v1:{text}"}}
            text = self.decrypt(name, body["ciphertext"].removeprefix("vault:v1:"), bound_to)
            return 200, {"data": {"plaintext": text}}
        except (InvalidTag, ValueError):
            return 400, {"errors": ["cipher: message authentication failed"]}


class Aws(Kms):
    """AWS KMS: JSON 1.1, the operation in `X-Amz-Target`."""

    def answer(self, path: str, headers: Any, body: dict[str, Any]) -> Answer:
        name = body["KeyId"].removeprefix("alias/")
        if name not in self.keys:
            return 400, {"__type": "NotFoundException", "message": "no such key"}
        bound_to = json.dumps(body["EncryptionContext"], sort_keys=True).encode()
        if headers["X-Amz-Target"] == "TrentService.Encrypt":
            return 200, {"CiphertextBlob": self.encrypt(name, body["Plaintext"], bound_to)}
        try:
            return 200, {"Plaintext": self.decrypt(name, body["CiphertextBlob"], bound_to)}
        except (InvalidTag, ValueError):
            return 400, {"__type": "InvalidCiphertextException"}
