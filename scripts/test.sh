#!/usr/bin/env bash
# From a fresh machine to green tests: bash scripts/test.sh [arguments of pytest; -m gpu for the tests of a GPU]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
prepare_environment test

ruff check --quiet .
ruff format --quiet --check .
python -m pytest -m "not slow and not gpu" "$@"
