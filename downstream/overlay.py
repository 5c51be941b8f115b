"""Where a defect is, as a picture: heat on one scale for all pictures, tied to the threshold, contours and boxes.

Heat that is scaled for each picture alone paints good products red. Here nothing is coloured up to half of the
threshold, the threshold itself is where yellow begins, and the hottest colour is twice the threshold in every picture.
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from baselines.regions import Region
from pretrain.drawing import DEFECT, FAINT, GAP_PX, INK, MARGIN_PX, PAPER, outlined

# From half of the threshold (clear) over the threshold (third) to twice the threshold; luminance rises throughout.
STOPS = np.array([(40, 20, 110), (150, 30, 120), (245, 190, 40), (255, 225, 120), (255, 250, 225)], float)
PLACES = np.array([0.0, 0.2, 1 / 3, 0.6, 1.0])
GOOD = "#1f8a4c"
"""
