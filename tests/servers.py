"""HTTP servers on this machine, for tests."""

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def file_server(content: bytes, secret: str) -> Iterator[int]:
    """Serves `content`, in parts too, to whoever has `secret` in the URL's query; gives its port."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if secret not in self.path:
                self.send_error(403)
                return
            asked = self.headers.get("Range")
            first, last = (asked or f"bytes=0-{len(content) - 1}").partition("=")[2].split("-")
            part = content[int(first) : int(last) + 1]
            self.send_response(206 if asked else 200)
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("Content-Length", str(len(part)))
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
            self.end_headers()
            self.wfile.write(part if self.command == "GET" else b"")

        do_HEAD = do_GET

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server.server_address[1]
        server.shutdown()
