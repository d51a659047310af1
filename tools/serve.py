"""Serve the built book on this machine alone."""

import argparse
import errno
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

HTML = Path(__file__).resolve().parent.parent / "_build" / "html"


class Quiet(SimpleHTTPRequestHandler):
    """A static file server that keeps its log to itself."""

    def log_message(self, format, *args):
        pass


def server(port: int, folder: Path = HTML) -> ThreadingHTTPServer:
    return ThreadingHTTPServer(("127.0.0.1", port), partial(Quiet, directory=folder))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--check", action="store_true", help="only see whether the port is free")
    options = parser.parse_args()
    if not 0 < options.port < 65536:
        parser.error(f"--port: expected a number from 1 to 65535, got {options.port}")
    try:
        with server(options.port) as book:
            if not options.check:
                print(f"Read the book at http://127.0.0.1:{options.port} (stop: Ctrl-C)", flush=True)
                book.serve_forever()
    except OSError as error:
        why = {errno.EADDRINUSE: "is in use", errno.EACCES: "is for the system's own use"}.get(error.errno)
        if not why:
            raise
        other = options.port + 1 if 1024 <= options.port < 65535 else 8000
        sys.exit(f"Port {options.port} {why}. Choose another: make book PORT={other}")
    except KeyboardInterrupt:
        print()


if __name__ == "__main__":
    main()
