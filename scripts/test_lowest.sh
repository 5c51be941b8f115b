#!/usr/bin/env bash
# Tests with the lowest versions that setup.cfg allows: bash scripts/test_lowest.sh [arguments of pytest]
# In an environment of its own, which is removed in the end (some 7 GB).
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# A file for each of the packages: command lines, backbones, weights, an index, a hub, a service, a table of figures,
# trackers, annotations, tables, a line with its cameras, brokers and PLCs.
tests=(tests/pretrain/test_command.py tests/pretrain/test_files.py tests/pretrain/test_backbone.py
    tests/pretrain/test_weights.py tests/pretrain/test_views.py tests/embeddings/index tests/baselines/contract
    tests/downstream/test_detect.py tests/downstream/hub tests/downstream/methods/test_openvino_runtime.py
    tests/downstream/service/test_routes.py tests/downstream/service/test_database.py
    tests/pretrain/training/test_trackers.py tests/pretrain/data/test_annotations.py
    tests/pretrain/data/layouts/test_table.py tests/downstream/stations)
lowest=$(mktemp -d)
trap 'rm -rf "$lowest"' EXIT
"$(find_python)" -m venv "$lowest"
"$lowest/bin/python" -m pip install --quiet --disable-pip-version-check uv
# pip knows only of the highest ones. Without a cache, since nobody installs these again.
"$lowest/bin/uv" pip install --quiet --no-cache --python "$lowest/bin/python" --resolution lowest-direct -e '.[test]'
OMP_NUM_THREADS=1 "$lowest/bin/python" -m pytest -n 2 --dist loadfile -m "not slow and not gpu" "${@:-${tests[@]}}"
