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
    try:
        with server(options.port) as book:
            if not options.check:
                print(f"Read the book at http://127.0.0.1:{options.port} (stop: Ctrl-C)", flush=True)
                book.serve_forever()
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        sys.exit(f"Port {options.port} is in use. Choose another: make book PORT={options.port + 1}")
    except KeyboardInterrupt:
        print()


if __name__ == "__main__":
    main()
