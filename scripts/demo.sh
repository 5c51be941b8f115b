#!/usr/bin/env bash
# From a fresh machine to the first result: bash scripts/demo.sh
# Makes a virtual environment (or uses the active one), installs, makes the demo pictures, shows what is in them.
# Called again, it installs nothing and draws nothing anew.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
prepare_environment

python pretrain/demo.py --out data/demo
python pretrain/survey.py --data data/demo --sheet runs/demo/pictures.png
echo "Open runs/demo/pictures.png to see them. To look at a folder of your own:"
echo "  python pretrain/survey.py --data FOLDER --sheet sheet.png"
