#!/usr/bin/env bash
# Tests with the lowest versions that setup.cfg allows, as lowest.txt pins them:
#   bash scripts/test_lowest.sh [arguments of pytest]   all, in an environment of its own (some 7 GB, a quarter of an hour)
#   bash scripts/test_lowest.sh --quick                 as CI does, in two minutes: short tests in the environment that is
#                                                       there, before which all lie but torch, torchvision, CUDA and
#                                                       Playwright (1.3 GB)
#   bash scripts/test_lowest.sh --write                 write lowest.txt anew, after bounds changed
# What it installs is removed in the end.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# A short one for each package: command lines, files, backbones and their weights, views; images, manifests, tables and
# annotations, and where they lie; trackers, an index, figures, pages; exported models; the service and its database;
# a line's messages and pictures; Ray, containers' files, completion.
quick=(tests/pretrain/test_config.py tests/pretrain/test_files.py tests/pretrain/test_backbone.py
    tests/pretrain/test_weights.py tests/pretrain/test_views.py tests/pretrain/test_lars.py tests/pretrain/test_doctor.py
    tests/pretrain/data/test_decode.py tests/pretrain/data/test_bands.py tests/pretrain/data/test_places.py
    tests/pretrain/data/test_manifest.py tests/pretrain/data/layouts/test_table.py tests/pretrain/data/test_annotations.py
    tests/pretrain/training/test_trackers.py tests/embeddings/index/test_exact.py tests/embeddings/index/test_recall.py
    tests/embeddings/test_map_page.py tests/baselines/contract/test_metrics.py tests/pretrain/test_progress.py
    tests/downstream/methods/test_exported.py tests/downstream/methods/test_openvino_runtime.py
    tests/downstream/service/test_routes_roi.py tests/downstream/service/test_monitoring.py
    tests/downstream/service/test_connections.py tests/downstream/service/test_database.py
    tests/downstream/stations/sinks/test_modbus.py tests/downstream/stations/sinks/test_mqtt.py
    tests/downstream/stations/sinks/test_opcua.py tests/downstream/stations/sinks/test_sparkplug.py
    tests/downstream/stations/sources/test_pixel_formats.py tests/scripts/test_containers.py tests/scripts/test_extras.py
    tests/test_heldout.py::test_a_shell_may_ask_for_what_comes_next
    tests/test_on_ray.py::test_results_are_those_of_this_process_and_come_from_several)
# Longer ones: whole commands and trainings, where torch counts, and browsers, fuzzing and the site of docs/.
more=(tests/pretrain/test_command.py tests/pretrain/test_loss.py tests/pretrain/test_simclr.py tests/pretrain/data
    tests/embeddings/index tests/baselines/contract tests/downstream/test_detect.py tests/downstream/exporting
    tests/downstream/hub tests/downstream/report tests/downstream/service/test_routes.py
    tests/downstream/service/test_migrating.py tests/downstream/service/test_fuzz.py tests/downstream/stations
    tests/scripts/test_notebooks.py tests/test_docs.py tests/test_heldout.py tests/test_on_ray.py)

prepare_environment test
python=$VIRTUAL_ENV/bin/python
lowest=$(mktemp -d)
trap 'rm -rf "$lowest"' EXIT
pip=("$python" -m pip --disable-pip-version-check --quiet)

is_lowest=true # Python itself, since later ones have no wheels of these versions
"$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || is_lowest=false

case ${1:-} in
--write)
    "${pip[@]}" install --target "$lowest/uv" uv # pip knows only of the highest versions
    "$lowest/uv/bin/uv" pip compile --quiet --upgrade --resolution lowest-direct --python-version 3.11.4 --extra test \
        --annotation-style line --custom-compile-command "bash scripts/test_lowest.sh --write" \
        --output-file scripts/lowest.txt setup.cfg
    ;;
--quick)
    if ! $is_lowest; then
        echo "the lowest versions are NOT tested here: they are those of Python 3.11, and $VIRTUAL_ENV has another"
        exit
    fi
    # What the environment has in the very version stays there.
    "$python" - scripts/lowest.txt >"$lowest/differing.txt" <<'PYTHON'
import re
import sys
from importlib.metadata import distributions

normal = lambda name: re.sub(r"[-_.]+", "-", name).lower()
has = {(normal(each.name), each.version) for each in distributions()}
for name, version in re.findall(r"^([a-z0-9-]+)==(\S+)", open(sys.argv[1]).read(), re.MULTILINE):
    if (name, version) not in has and not re.fullmatch("torch|torchvision|triton|nvidia-.*|cuda-.*|playwright", name):
        print(f"{name}=={version}")
PYTHON
    echo "installing the lowest versions of $(wc -l <"$lowest/differing.txt") packages that $VIRTUAL_ENV has higher"
    # Without what these need, since that is pinned too.
    "${pip[@]}" install --target "$lowest/packages" --no-deps --no-compile --requirement "$lowest/differing.txt"
    # As in test.sh, whose style and types are not looked at twice.
    PYTHONPATH=$lowest/packages${PYTHONPATH:+:$PYTHONPATH} PYTEST_DISABLE_PLUGIN_AUTOLOAD=1 OMP_NUM_THREADS=1 \
        "$python" -m pytest -p xdist -n 2 --max-worker-restart 0 --dist loadfile --no-loadscope-reorder \
        -o faulthandler_timeout=600 -o faulthandler_exit_on_timeout=true -m "not slow and not gpu" "${quick[@]}"
    ;;
*)
    $is_lowest || { echo "error: they are those of Python 3.11, and $VIRTUAL_ENV has another" >&2; exit 1; }
    "$python" -m venv "$lowest/all"
    "$lowest/all/bin/python" -m pip --disable-pip-version-check --quiet install --requirement scripts/lowest.txt
    [ $# -gt 0 ] || set -- "${quick[@]}" "${more[@]}"
    VIRTUAL_ENV=$lowest/all PATH=$lowest/all/bin:$PATH bash scripts/test.sh "$@"
    ;;
esac
