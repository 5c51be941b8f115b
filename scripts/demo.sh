#!/usr/bin/env bash
# From a fresh machine to the first result: bash scripts/demo.sh
# Makes a virtual environment (or uses the active one), installs, makes the demo pictures, shows what is in them,
# pretrains an encoder on twelve of their categories and measures it on the other three.
# Called again, it installs nothing, draws nothing and trains nothing anew.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
prepare_environment

python pretrain/demo.py --out data/demo
python pretrain/survey.py --data data/demo --sheet runs/demo/pictures.png
python pretrain/simclr.py --data data/demo --out runs/demo/simclr --epochs 5
python scripts/probe.py --data data/demo --encoder runs/demo/simclr/encoder.safetensors
echo "Look at runs/demo/pictures.png and runs/demo/simclr/curves.png. With a folder of your own:"
echo "  python pretrain/survey.py --data FOLDER --sheet sheet.png"
echo "  python pretrain/simclr.py --data FOLDER --hold-out CATEGORY"
