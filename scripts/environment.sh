# Sourced by demo.sh and test.sh: a Python environment with heldout in it, made only when it is not there yet.
# prepare_environment [EXTRA]   the active virtual environment is used, else .venv beside this folder

prepare_environment() {
    local extra=${1:+[$1]} wanted mark options=(--quiet --disable-pip-version-check)
    cd "$(dirname "${BASH_SOURCE[0]}")/.." || return 1
    if [ -z "${VIRTUAL_ENV:-}" ]; then
        # One that an interrupted call left without pip is completed; nothing is ever deleted.
        if [ ! -x .venv/bin/python ] || ! .venv/bin/python -c 'import pip' 2>/dev/null; then
            local python
            python=$(find_python) || return 1
            echo "making a virtual environment in .venv with $python"
            "$python" -m venv .venv || {
                echo "error: $python cannot make virtual environments; on Debian: apt install python3-venv" >&2
                return 1
            }
        fi
        export VIRTUAL_ENV=$PWD/.venv PATH=$PWD/.venv/bin:$PATH
    fi
    # The mark says for which setup.cfg, extra and folder all was installed.
    wanted=$({ pwd && echo "$extra" && cat setup.cfg pyproject.toml; } | cksum | tr -d ' ')
    mark=$VIRTUAL_ENV/heldout-installed-$wanted
    if [ ! -e "$mark" ]; then
        echo "installing heldout${extra} and what it needs into $VIRTUAL_ENV (some 7 GB, about two minutes)"
        # What is imported leaves its bytecode. To make that of all 20,000 files beforehand takes pip a minute.
        [ -n "${PYTHONDONTWRITEBYTECODE:-}" ] || options+=(--no-compile)
        "$VIRTUAL_ENV/bin/python" -m pip install "${options[@]}" --editable ".$extra" || {
            echo "error: the installation failed; mend what pip says above and run the same command again" >&2
            return 1
        }
        touch "$mark"
    fi
}

find_python() {
    local python
    for python in python3 python3.14 python3.13 python3.12 python3.11 python; do
        if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11, 4))' 2>/dev/null; then
            echo "$python"
            return
        fi
    done
    echo "error: heldout needs Python 3.11.4 or newer, and none is on the PATH; see https://www.python.org/downloads" >&2
    return 1
}
