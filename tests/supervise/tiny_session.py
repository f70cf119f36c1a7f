"""A session of a few lines: answers with its pid wherever the hub said it should listen."""

import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit


class Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = str(os.getpid()).encode()
        self.send_response(200)
        self.send_header("X-JupyterHub-Version", "6.1.1")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        return


place = urlsplit(os.environ["JUPYTERHUB_SERVICE_URL"])
try:
    ThreadingHTTPServer((place.hostname or "127.0.0.1", place.port or 0), Answer).serve_forever()
except KeyboardInterrupt:
    sys.exit(0)
