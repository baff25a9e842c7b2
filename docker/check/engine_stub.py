"""An engine that only says which one it is: for the check of the engines' balancer, where two vLLMs would say no more.

It takes port 8000, is healthy, and answers every POST with the container's host name.
"""

import socket
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Stub(BaseHTTPRequestHandler):
    """Answers with a name."""

    def do_GET(self) -> None:
        """Be healthy."""
        self.answer()

    def do_POST(self) -> None:
        """Say who answers."""
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.answer()

    def answer(self) -> None:
        """Send this container's name."""
        body = socket.gethostname().encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


ThreadingHTTPServer(("", 8000), Stub).serve_forever()
