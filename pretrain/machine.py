"""Which device, how many processes, what precision: whatever depends on the machine a training runs on."""

import math
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from pretrain.command import Mistake

if TYPE_CHECKING:
    import numpy as np
    import torch
    from lightning_fabric import Fabric
    from torch import Tensor

    from pretrain.dataset import Pictures

DEVICES = ("auto", "cpu", "cuda")
PRECISIONS = ("bf16-mixed", "32-true", "64-true")


def make_fabric(device: str, precision: str | None) -> "Fabric":
    """Fabric on one process, or on those that torchrun started, on one machine or several. Already launched."""
    import torch
    from lightning_fabric import Fabric

    if device not in DEVICES:
        raise Mistake(f"there is no device {device}; choose from {', '.join(DEVICES)}.")
    if device == "cuda" and not torch.cuda.is_available():
        raise Mistake("torch finds no CUDA device here; use --device cpu, or install a torch build that fits the GPU.")
    accelerator = "cuda" if device != "cpu" and torch.cuda.is_available() else "cpu"
    precision = precision or ("bf16-mixed" if has_bf16(accelerator) else "32-true")
    if precision not in PRECISIONS:
        raise Mistake(f"there is no precision {precision}; choose from {', '.join(PRECISIONS)}.")
    processes, here = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    fabric = Fabric(
        accelerator=accelerator,
        devices=here,
        num_nodes=processes // here,
        strategy="ddp" if processes > 1 else "auto",
        precision=precision,
    )
    fabric.launch()
    return fabric


def has_bf16(accelerator: str) -> bool:
    """Whether bf16 is fast here: measured 1.5 times fp32 on a CPU that has instructions for it, slower on others."""
    import torch

    if accelerator == "cuda":
        return torch.cuda.is_bf16_supported()
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return bool(supported and supported())


def on_device(pictures: "Pictures", device: "torch.device") -> Callable[[Sequence[int]], "Tensor"]:
    """Gives a function from positions to uint8 (b, h, w, 3) on the device: on a GPU, all pictures lie there from the
    start if they fit into a quarter of its free memory, so that it never waits for the disk."""
    import torch

    shape = (len(pictures), pictures.size_px, pictures.size_px, 3)
    if device.type == "cuda" and math.prod(shape) < torch.cuda.mem_get_info(device)[0] / 4:
        everything = torch.empty(shape, dtype=torch.uint8, device=device)
        for start in range(0, len(pictures), 256):
            some = range(start, min(start + 256, len(pictures)))
            everything[start : some.stop] = torch.from_numpy(pictures.batch(some)).to(device)
        return lambda positions: everything[torch.as_tensor(positions, device=device)]
    return lambda positions: torch.from_numpy(pictures.batch(positions)).to(device)


def rank_positions(batch: int, fabric: "Fabric") -> "np.ndarray":
    """Where this process's share of a global batch lies in it."""
    import numpy as np

    share = batch // fabric.world_size
    return np.arange(share) + share * fabric.global_rank
