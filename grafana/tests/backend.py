"""The operator's side of a cluster: published keys, an authorize service, a receiver of webhooks, and calls of the HTTP API.
Used by cluster.py and dashboards.py; knows nothing of dashboards.

All is checked as docs/auth.md and docs/webhooks.md ask backends to: what is not signed with the secret gets 401.
"""

import base64
import hashlib
import hmac
import json
import subprocess
import threading
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# Tokens by the secret are the load testers'; those by the published key are made by `gateway token`.
JWT_SECRET = "a secret of the tests, and 32 bytes or more"
AUDIENCE = "dashboards"
SECRET = "signs questions and events"
KEY_ID = "dashboards-1"


def openssl(*words):
    return subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True, timeout=60).stdout


def is_signed(header, body):
    parts = dict(part.split("=", 1) for part in header.split(",") if "=" in part)
    expected = hmac.new(SECRET.encode(), parts.get("t", "").encode() + b"." + body, hashlib.sha256).hexdigest()
    return hmac.compare_digest(expected.encode(), parts.get("v1", "").encode())


class Server(ThreadingHTTPServer):
    daemon_threads = True
    # As many as a storm brings at once; what finds no place waits for a second.
    request_queue_size = 256


class Backend:
    """One server for all that nodes ask of the outside. Ended by close()."""

    def __init__(self, folder):
        self.key = folder / "key.pem"
        openssl("genpkey", "-algorithm", "ed25519", "-out", self.key)
        # The key itself is the end of what openssl writes around it.
        public = openssl("pkey", "-in", self.key, "-pubout", "-outform", "DER")[-32:]
        x = base64.urlsafe_b64encode(public).rstrip(b"=").decode()
        self.keys = {"keys": [{"kty": "OKP", "crv": "Ed25519", "x": x, "kid": KEY_ID, "use": "sig", "alg": "EdDSA"}]}
        self.is_well = True
        self.events = 0
        self.closing = threading.Event()
        self.server = Server(("127.0.0.1", 0), self.answers())
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.closing.set()
        self.server.shutdown()
        self.server.server_close()

    def settings(self):
        """What a node needs to know of it."""
        url = f"http://127.0.0.1:{self.server.server_port}"
        return {
            "jwt-secret": JWT_SECRET, "jwt-audience": AUDIENCE, "jwt-jwks-url": f"{url}/keys", "jwks-refresh": "1s",
            # Patience for machines that are busy.
            "authorize-url": f"{url}/authorize", "authorize-secret": SECRET, "authorize-timeout": "15s",
            "webhook-url": f"{url}/events", "webhook-secret": SECRET,
        }  # fmt: skip

    def answers(self):
        """The server's side, as http.server wants it."""
        backend = self

        class Answers(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                if self.path == "/keys":
                    self.answer(200 if backend.is_well else 500, backend.keys)
                else:
                    self.answer(404)

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if not is_signed(self.headers.get("Roomcast-Signature", ""), body):
                    self.answer(401)
                elif self.path == "/authorize":
                    self.answer(200 if backend.is_well else 500, {"allow": True})
                elif self.path == "/events":
                    # 410 is no status to try again at.
                    self.answer(200 if backend.is_well else 410)
                    backend.events += len(json.loads(body)["events"])
                else:
                    self.answer(404)

            def answer(self, status, value=None):
                body = b"" if value is None or status != 200 else json.dumps(value).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        return Answers

    def call_api_for_ever(self, url, key):
        """All that a backend asks, mistakes included; what comes of it is counted by the nodes."""

        def calls():
            while not self.closing.wait(0.2):
                call(url, key, "GET", "/rooms?limit=10")
                call(url, key, "GET", "/rooms/api/members")
                call(url, key, "POST", "/rooms/api/messages", {"data": {"text": "news"}})
                call(url, key, "GET", "/rooms/api/messages")
                call(url, key, "DELETE", "/rooms/api/members?user=nobody")
                call(url, key, "GET", "/rooms/a%20b")

        threading.Thread(target=calls, daemon=True).start()


def call(url, key, method, path, body=None):
    """The status of one request of the API; none without an answer."""
    data = None if body is None else json.dumps(body).encode()
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    request = urllib.request.Request(f"{url}/api/v1{path}", data, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        # A node that is killed, or has no place left: the next one comes.
        time.sleep(0.2)
        return None
