# Make .venv with the first supported Python found, or the one named by PYTHON=..., and install the course into it.
set -euo pipefail

supported='import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))'
candidates=(.venv/bin/python python3 python3.13 python3.12 python3.11)
if [ -n "${PYTHON:-}" ]; then candidates=("$PYTHON"); fi
for python in "${candidates[@]}"; do
    if command -v "$python" >/dev/null && "$python" -c "$supported" 2>/dev/null; then found=$python; break; fi
done
if [ -z "${found:-}" ]; then
    echo "The course needs Python 3.11, 3.12 or 3.13; found: $("${PYTHON:-python3}" --version 2>&1 || true)." >&2
    echo "Install one of them, or name it: make book PYTHON=/path/to/python3.12" >&2
    exit 1
fi
if [ "$found" != .venv/bin/python ] || [ "$(cat .venv/.installed 2>/dev/null)" != "$(pwd -P)" ]; then
    if [ "$found" = .venv/bin/python ]; then found=$(.venv/bin/python -c 'import sys; print(sys._base_executable)'); fi
    rm -rf .venv
    "$found" -m venv .venv || { rm -rf .venv; echo "Python's venv module is missing; on Debian or Ubuntu: apt install python3-venv" >&2; exit 1; }
fi
echo "Installing the course into .venv (some minutes, once) ..."
.venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
PYTHONWARNINGS=ignore .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
pwd -P > .venv/.installed  # as make has it in CURDIR: without symbolic links
