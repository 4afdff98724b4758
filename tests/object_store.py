"""An S3 server on this machine, moto's, whose requests are kept and can be made to fail.

moto runs in a process of its own, behind a server of this one: it imports flask, and vLLM does not start in a process
that has flask's proxies among its modules.
"""

import atexit
import functools
import http.client
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

import boto3
from botocore.config import Config

SLOW_DOWN = (503, "SlowDown")
DENIED = (403, "AccessDenied")
# It says its port, and ends with the process that started it.
_MOTO = """
import os, sys, threading
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server
WSGIRequestHandler.log = lambda *arguments: None
server = make_server("127.0.0.1", 0, DomainDispatcherApplication(create_backend_app), threaded=True)
print(server.port, flush=True)
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
server.serve_forever()
"""


@functools.cache
def _moto_port() -> int:
    """The port of moto's server, which this starts."""
    pipe = subprocess.PIPE
    process = subprocess.Popen([sys.executable, "-c", _MOTO], stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL)
    assert process.stdin is not None and process.stdout is not None
    atexit.register(process.stdin.close)
    return int(process.stdout.readline())


class ObjectStore:
    """The server, and one bucket of it.

    Attributes:
        asked: method and path of each request for an object of the bucket, in order; of a part of an object, with its
            query.
        fault: asked for each request of a method for a path: a status and S3's name for the error, to answer with
            that; it may block.
    """

    def __init__(self, bucket: str) -> None:
        self.bucket = bucket
        self.asked: list[tuple[str, str]] = []
        self.fault: Callable[[str, str], tuple[int, str] | None] = lambda method, path: None
        self._server: ThreadingHTTPServer | None = None
        self.port = 0
        _moto_port()
        self.start()
        self.client.create_bucket(Bucket=bucket)

    def start(self) -> None:
        """Serve, on the same port as before."""
        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), functools.partial(_Handler, self))
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        """Serve no more; what is stored stays."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to find the server."""
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}",
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    @property
    def client(self) -> Any:
        return boto3.client(
            "s3",
            endpoint_url=f"http://127.0.0.1:{self.port}",
            aws_access_key_id="key",
            aws_secret_access_key="secret",
            region_name="us-east-1",
            config=Config(s3={"addressing_style": "path"}),
        )

    def objects(self) -> dict[str, bytes]:
        """All objects of the bucket, by key."""
        client = self.client
        found = client.list_objects_v2(Bucket=self.bucket).get("Contents", [])
        return {item["Key"]: client.get_object(Bucket=self.bucket, Key=item["Key"])["Body"].read() for item in found}

    def written(self) -> list[str]:
        """What was done to objects, in order, by their names: `part-000000.parquet`, or `-_SUCCESS` where removed."""
        done = [(method, path.rsplit("/", 1)[-1]) for method, path in self.asked if method in ("PUT", "DELETE")]
        return [
            ("-" if method == "DELETE" else "") + name for method, name in done if not name.startswith("upload-check")
        ]

    def refusal(self, method: str, url: str) -> tuple[int, str] | None:
        """What a request is answered with in place of moto's answer."""
        path, _, query = url.partition("?")
        path = unquote(path)
        if re.match(rf"/{self.bucket}/.+", path) is None:
            return None
        path += f"?{query}" if "partNumber" in query else ""
        found = self.fault(method, path)
        self.asked.append((method, path))
        return found


class _Handler(BaseHTTPRequestHandler):
    """Passes a request on to moto, or refuses it; each on a connection of its own."""

    def __init__(self, store: ObjectStore, *arguments: Any) -> None:
        self._store = store
        super().__init__(*arguments)

    def log_message(self, *arguments: Any) -> None:
        pass

    def do_GET(self) -> None:
        if self.headers.get("Expect", "").lower() == "100-continue":
            self.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        refusal = self._store.refusal(self.command, self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if refusal is not None:
            status, code = refusal
            text = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{code}</Message></Error>".encode()
            self._answer(status, [("Content-Type", "application/xml"), ("Content-Length", str(len(text)))], text)
            return
        moto = http.client.HTTPConnection("127.0.0.1", _moto_port())
        try:
            moto.request(self.command, self.path, body, {k: v for k, v in self.headers.items() if k != "Expect"})
            response = moto.getresponse()
            content = response.read()
            self._answer(response.status, response.getheaders(), content)
        finally:
            moto.close()

    do_PUT = do_POST = do_HEAD = do_DELETE = do_GET

    def _answer(self, status: int, headers: list[tuple[str, str]], content: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() not in ("transfer-encoding", "connection"):
                self.send_header(name, value)
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(content)
