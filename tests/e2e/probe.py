#!/usr/bin/python3
"""Tries what it is asked to, from inside a sandbox: /read?PATH, /list?PATH, /connect?PORT, /unix?PATH, /processes, /env,
/get?URL, /dial?ADDRESS:PORT, /name?NAME."""
import http.server
import json
import os
import socket
import urllib.parse
import urllib.request


def connect(family, address):
    with socket.socket(family) as stream:
        stream.settimeout(5)
        stream.connect(address)
        return "connected"


def get(url):
    with urllib.request.urlopen(url, timeout=30) as answer:
        return answer.read().decode()


def dial(target):
    address, _, port = target.rpartition(":")
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return connect(family, (address, int(port)))


TRIALS = {
    "/get": get,
    "/dial": dial,
    "/name": socket.gethostbyname,
    "/read": lambda what: open(what, "rb").read(16).hex(),
    "/list": lambda what: sorted(os.listdir(what)),
    "/connect": lambda what: connect(socket.AF_INET, ("127.0.0.1", int(what))),
    "/unix": lambda what: connect(socket.AF_UNIX, what),
    "/processes": lambda _: sorted(int(name) for name in os.listdir("/proc") if name.isdigit()),
    "/write": lambda what: open(what, "w").write("x"),
    "/env": lambda _: dict(os.environ),
}


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        path, _, what = self.path.partition("?")
        try:
            answer = {"ok": TRIALS[path](urllib.parse.unquote(what))}
        except OSError as error:
            answer = {"error": getattr(error, "strerror", None) or str(error)}
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


http.server.ThreadingHTTPServer(("", int(os.environ["PORT"])), Handler).serve_forever()
