#!/bin/sh
# Makes .venv and installs the course into it: with uv where it can be had, else with pip.
# An argument names other extras of pyproject.toml than dev: sh tools/install.sh dev,site
# TORCH=cpu asks for PyTorch's CPU build; on Linux the ordinary one brings gigabytes of CUDA.
set -eu
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
extras=${1:-dev}
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    echo "The course needs Python 3.11 or newer, and '$python' is not: name another one, as in make course PYTHON=python3.12" >&2
    exit 1
fi
if ! "$python" -m venv .venv; then
    echo "'$python' could not make a virtual environment; on Debian and Ubuntu, apt install python3-venv helps" >&2
    exit 1
fi
echo "installing into .venv (the first time this takes a few minutes)"
with_uv() {
    .venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt uv &&
        UV_FIND_LINKS="${UV_FIND_LINKS:-${PIP_FIND_LINKS:-}}" \
            .venv/bin/uv pip install --quiet --python .venv ${TORCH:+--torch-backend="$TORCH"} -c constraints.txt -e ".[$extras]"
}
if ! with_uv; then
    if [ -n "${TORCH:-}" ]; then
        echo "TORCH=$TORCH needs uv, which could not be used; without TORCH, pip installs the ordinary build" >&2
        exit 1
    fi
    echo "uv could not be used: pip does it, more slowly"
    .venv/bin/python -m pip install --quiet -c constraints.txt -e ".[$extras]"
fi
touch .venv/.installed
