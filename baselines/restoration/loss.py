"""The loss of a restorer: errors that count more where the defect is.

w = alpha + beta * mask. Published is c0 * MSE_w + c1 * MAE_w + c2 * (10 / ln 10) * mean ln(MSE of each image), whose
last term, minus PSNR, is not weighted and outweighs the mask about two thousand times. `repaired` weighs it too.
`balanced` also divides each mask by its share of the image: in half a per cent of the pixels a factor of three is
next to nothing, so there the mask as a whole counts beta, however small the defect is. On real images that was worse
than `repaired`, in the mask too (RESULTS.md).
"""

import math
from collections.abc import Sequence

from torch import Tensor

from pretrain.command import UserError, nearest

PUBLISHED, REPAIRED, BALANCED = WEIGHTINGS = ("published", "repaired", "balanced")
DECIBELS = 10 / math.log(10)
MIN_ERROR = 1e-8
TERMS = 3  # squares, absolute values, minus PSNR


def restoration_loss(
    restored: Tensor,
    clean: Tensor,
    masks: Tensor,
    alpha: float = 1.0,
    beta: float = 2.0,
    loss_weights: Sequence[float] = (1.0, 0.0, 0.5),
    weighting: str = REPAIRED,
) -> Tensor:
    """Images float32 (b, 3, h, w) and masks bool (b, h, w) -> the loss, ().

    Raises UserError for an unknown weighting, and for weights with which nothing can be learned.
    """
    check_weights(alpha, beta, loss_weights, weighting)
    weights = pixel_weights(masks, alpha, beta, weighting)  # (b, 1, h, w)
    error = restored - clean
    squares, sizes = error.square(), error.abs()
    total = restored.shape[1] * weights.sum()
    loss = loss_weights[0] * (weights * squares).sum() / total + loss_weights[1] * (weights * sizes).sum() / total
    if weighting == PUBLISHED:
        image_errors = squares.mean((1, 2, 3))  # (b,)
    else:
        image_errors = (weights * squares).mean((1, 2, 3)) / weights.mean((1, 2, 3))
    return loss + loss_weights[2] * DECIBELS * (image_errors + MIN_ERROR).log().mean()


def pixel_weights(masks: Tensor, alpha: float, beta: float, weighting: str) -> Tensor:
    """bool (b, h, w) -> float32 (b, 1, h, w)."""
    inside = masks[:, None].float()
    if weighting == BALANCED:
        share = inside.mean((1, 2, 3), keepdim=True)
        inside = inside / share.clamp(min=1 / masks[0].numel())  # an empty mask stays empty
    return alpha + beta * inside


def check_weights(alpha: float, beta: float, loss_weights: Sequence[float], weighting: str) -> None:
    if weighting not in WEIGHTINGS:
        raise UserError(f"there is no weighting {weighting!r}; {nearest(weighting, WEIGHTINGS)}")
    if not (math.isfinite(alpha) and math.isfinite(beta) and alpha > 0 and beta >= 0):
        raise UserError(f"alpha {alpha} and beta {beta} weigh nothing: give alpha above 0 and beta 0 or more.")
    usable = len(loss_weights) == TERMS and all(math.isfinite(weight) and weight >= 0 for weight in loss_weights)
    if not usable or not any(loss_weights):
        raise UserError(
            f"loss_weights {','.join(map(str, loss_weights))} cannot be used: give three, 0 or more and not all 0, for "
            "squares, absolute values and minus PSNR, such as 1,0,0.5."
        )
