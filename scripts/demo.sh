#!/usr/bin/env bash
# From a fresh machine to the first result: bash scripts/demo.sh
# Makes a virtual environment (or uses the active one), installs, makes the demo images, shows what is in them,
# pretrains an encoder on twelve of their categories, and compares methods on the other three: the quick study.
# Called again, it installs nothing, draws nothing and trains nothing anew.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
prepare_environment

python pretrain/demo.py --out data/demo
python pretrain/survey.py --data data/demo --sheet runs/demo/images.png
python pretrain/simclr.py --data data/demo --out runs/demo/simclr --epochs 5
python downstream/evaluate.py --quick --data data/demo --encoder runs/demo/simclr/encoder.safetensors --out runs/demo/study
echo "Open runs/demo/study/report.html in a browser: the report. Also: runs/demo/images.png, runs/demo/simclr/curves.png."
echo "With a folder of your own:"
echo "  python pretrain/survey.py --data FOLDER --sheet sheet.png"
echo "  python pretrain/simclr.py --data FOLDER --hold-out CATEGORY"
echo "  python downstream/evaluate.py --data FOLDER --train OTHERS --test CATEGORY"
