"""An S3 server on this machine, moto's, whose requests are kept and can be made to fail."""

import re
import threading
from collections.abc import Callable, Iterable
from typing import Any

import boto3
from botocore.config import Config
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

SLOW_DOWN = (503, "SlowDown")
DENIED = (403, "AccessDenied")


class _Quiet(WSGIRequestHandler):
    def log(self, type: str, message: str, *args: Any) -> None:
        pass


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
        self._app = DomainDispatcherApplication(create_backend_app)
        self._server: BaseWSGIServer | None = None
        self.port = 0
        self.start()
        self.client.create_bucket(Bucket=bucket)

    def start(self) -> None:
        """Serve, on the same port as before."""
        self._server = make_server("127.0.0.1", self.port, self._answer, threaded=True, request_handler=_Quiet)
        self.port = self._server.port
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

    def _answer(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        method, path, query = (environ[name] for name in ("REQUEST_METHOD", "PATH_INFO", "QUERY_STRING"))
        if re.match(rf"/{self.bucket}/.+", path):
            path += f"?{query}" if "partNumber" in query else ""
            found = self.fault(method, path)
            self.asked.append((method, path))
            if found is not None:
                # The body is read: a client that still sends does not see the answer.
                environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
                return _refuse(*found, start_response)
        answer: Iterable[bytes] = self._app(environ, start_response)
        return answer


def _refuse(status: int, code: str, start_response: Any) -> Iterable[bytes]:
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{code}</Message></Error>".encode()
    start_response(f"{status} {code}", [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
    return [body]
