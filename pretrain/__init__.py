"""The ground: images, views, the encoder, SimCLR, and what a training run is."""

import os

# Read by OpenMP when torch is first loaded, and every package here imports this one before it: on two cores, spinning
# threads made the same training step up to eight times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
