"""Find a Chromium that starts, or install one: Debian's where there is one, Playwright's own elsewhere."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

NAMES = ["/usr/bin/chromium", "chromium", "chromium-browser", "google-chrome", "google-chrome-stable"]
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip


def starts(executable: str) -> bool:
    """Whether this browser opens a page (Ubuntu's chromium-browser, for one, may be a stub that only names a snap)."""
    command = [executable, "--headless", "--dump-dom", *FLAGS, "data:text/html,<p>it-starts</p>"]
    try:
        return "it-starts" in subprocess.run(command, capture_output=True, text=True, timeout=60).stdout
    except (OSError, subprocess.TimeoutExpired):
        return False


def playwrights_own() -> str | None:
    """Where Playwright keeps the Chromium that it installed."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        path = playwright.chromium.executable_path
    return path if Path(path).is_file() else None


def find() -> str | None:
    """The path of a Chromium that starts, or None."""
    candidates = [os.environ.get("CHROMIUM"), *map(shutil.which, NAMES)]
    for path in dict.fromkeys(filter(None, candidates)):
        if starts(path):
            return path
    own = playwrights_own()
    return own if own and starts(own) else None


def install_debian() -> None:
    """Install the distribution's chromium, where it has a real one and we may."""
    if not shutil.which("apt-get"):
        return
    may = [] if os.geteuid() == 0 else ["sudo", "-n"]
    if may and (not shutil.which("sudo") or subprocess.run([*may, "true"], capture_output=True).returncode):
        return
    subprocess.run([*may, "apt-get", "update", "-qq"])
    known = subprocess.run(["apt-cache", "show", "chromium"], capture_output=True, text=True).stdout
    if known and "snap" not in known:
        subprocess.run(
            [*may, "apt-get", "install", "-y", "-qq", "--no-install-recommends", "chromium"], stdout=subprocess.DEVNULL
        )


def install_playwrights_own() -> None:
    subprocess.run([sys.executable, "-m", "playwright", "install", "chromium"])


def main():
    path = find()
    for install in (install_debian, install_playwrights_own):
        if not path:
            install()
            path = find()
    if not path:
        sys.exit(
            "The tests of the site need a browser, and none could be found or installed.\n"
            "Debian: apt install chromium. Elsewhere: .venv/bin/playwright install --with-deps chromium.\n"
            "Or name one: make test CHROMIUM=/path/to/chromium"
        )
    print(f"Browser: {path}")


if __name__ == "__main__":
    main()
