#!/usr/bin/python3
"""Serves one connection at a time, keep-alive included: whoever has another one open makes all others wait."""
import http.server
import os


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        body = b"one at a time\n"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(http.server.HTTPServer):
    # Those that the kernel keeps in line; by default 5, and who comes then is dropped and tries again seconds later.
    request_queue_size = 128


Server(("", int(os.environ["PORT"])), Handler).serve_forever()
