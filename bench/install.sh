# Make bench/.venv, from the repository's root: the peers, on top of the course's .venv, whose packages it sees.
set -euo pipefail

packages() { "$1" -c 'import sysconfig; print(sysconfig.get_path("purelib"))'; }
echo "Installing what genlib is timed beside into bench/.venv (some minutes, once) ..."
rm -rf bench/.venv
.venv/bin/python -m venv bench/.venv
echo "import site; site.addsitedir('$(packages .venv/bin/python)')" > "$(packages bench/.venv/bin/python)/course.pth"
bench/.venv/bin/python -m pip install --quiet --disable-pip-version-check -r bench/requirements.txt
touch bench/.venv/.installed
