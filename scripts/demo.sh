#!/usr/bin/env bash
# From a fresh machine to the first result: bash scripts/demo.sh
# Makes a virtual environment (or uses the active one), installs, makes the demo images, shows what is in them,
# pretrains an encoder on twelve of their categories, compares methods on the other three (the quick study), and
# inspects one of them.
# Called again, it installs nothing, draws nothing and trains nothing anew.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
prepare_environment

step() { printf '\n== %s\n' "$*"; }
encoder=runs/demo/simclr/encoder.safetensors

step "1 of 4: images of 15 products, generated"
python pretrain/demo.py --out data/demo
python pretrain/survey.py --data data/demo --sheet runs/demo/images.png

step "2 of 4: SimCLR goes on training ImageNet's weights, on 12 of the products, without labels"
# A minute shows how it goes. For use, give it the default length and your own images.
python pretrain/simclr.py --data data/demo --hold-out bottle,pill,wood --out runs/demo/simclr --minutes 1

step "3 of 4: the quick study, on the 3 products that nothing was trained on"
python downstream/evaluate.py --quick --data data/demo --encoder $encoder --out runs/demo/study

step "4 of 4: inspect one product with ImageNet's weights: fit to its good images, run on its test images"
python downstream/detect.py fit --data data/demo/bottle --out runs/demo/bottle
# Exit code 1 says that something is defective, as it should be here.
python downstream/detect.py run data/demo/bottle --model runs/demo/bottle --out runs/demo/found || [ $? = 1 ]

cat <<END

Look at
  runs/demo/study/report.html    the report, in a browser: which method finds defects, and what SimCLR added
  runs/demo/found/               every bottle that was called defective, with its heatmap
  runs/demo/simclr/curves.png    how pretraining went
  runs/demo/images.png           what the products and their defects look like

With good images of a product of your own, no pretraining needed:
  python downstream/detect.py fit --data FOLDER_OF_GOOD_IMAGES --out models/mine
  python downstream/detect.py run IMAGE_OR_FOLDER --model models/mine
With several products, in FOLDER/PRODUCT/train/good:
  python pretrain/survey.py --data FOLDER --sheet sheet.png
  python pretrain/simclr.py --data FOLDER --hold-out PRODUCT
  python downstream/evaluate.py --data FOLDER --train OTHERS --test PRODUCT
END
