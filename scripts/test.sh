#!/usr/bin/env bash
# From a fresh machine to green tests: bash scripts/test.sh [arguments of pytest; -m gpu for the tests of a GPU]
set -euo pipefail
# Without bytecode every process that a test starts would compile heldout, and what it imports, anew.
unset PYTHONDONTWRITEBYTECODE
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
prepare_environment test

ruff check --quiet .
ruff format --quiet --check .
# Beside the tests, which now and then wait for something. What these find is said at the end.
found=$(mktemp)
{
    pyrefly check --summary=none --progress-bar=no      # types
    NO_MKDOCS_2_WARNING=1 mkdocs build --quiet --strict # the site of docs/, into site/
} >"$found" 2>&1 &
checking=$!
trap '[ -z "$checking" ] || kill "$checking" 2>/dev/null || true; rm -f "$found"' EXIT
# Two processes of one thread each, since most tests wait for something or compute too little to divide. A file's tests
# stay together, as they share what its fixtures trained, and come in the order of tests/conftest.py. `-n 0` is one
# process, as a debugger wants it. Plugins that other packages bring for pytest take seconds to load, and no test uses
# one.
export PYTEST_DISABLE_PLUGIN_AUTOLOAD=1 OMP_NUM_THREADS=1
# A test that hangs ends with its process after ten minutes and shows where it stood; the longest takes one. Without
# restarts, since xdist 3.8 gives a new process the finished files of the dead one, and waits for ever for their tests.
python -m pytest -p xdist -n 2 --max-worker-restart 0 --dist loadfile --no-loadscope-reorder \
    -o faulthandler_timeout=600 -o faulthandler_exit_on_timeout=true -m "not slow and not gpu" "$@" || failed=$?
is_well=true
wait "$checking" || is_well=false
checking=
if ! $is_well; then
    echo "error: types (pyrefly) or the site of docs/ (mkdocs):" >&2
    cat "$found" >&2
    exit 1
fi
exit "${failed:-0}"
