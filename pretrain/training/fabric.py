"""Fabric: how many processes, at what precision."""

import os
from typing import TYPE_CHECKING

import numpy as np

from pretrain.command import UserError
from pretrain.training.device import choose_device, has_bf16

if TYPE_CHECKING:
    from lightning_fabric import Fabric

PRECISIONS = ("bf16-mixed", "32-true", "64-true")


def make_fabric(device: str, precision: str | None) -> "Fabric":
    """Fabric on one process, or on those that torchrun started, on one machine or several. Already launched."""
    accelerator = choose_device(device).type
    precision = precision or ("bf16-mixed" if has_bf16(accelerator) else "32-true")
    if precision not in PRECISIONS:
        raise UserError(f"there is no precision {precision}; choose from {', '.join(PRECISIONS)}.")
    processes, here = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    # 3 s, with all of torchvision: not for who imports this and trains nothing, such as the service and the study.
    from lightning_fabric import Fabric

    fabric = Fabric(
        accelerator=accelerator,
        devices=here,
        num_nodes=processes // here,
        strategy="ddp" if processes > 1 else "auto",
        precision=precision,
    )
    fabric.launch()
    return fabric


def rank_positions(batch: int, fabric: "Fabric") -> np.ndarray:
    """Where this process's share of a global batch lies in it."""
    share = batch // fabric.world_size
    return np.arange(share) + share * fabric.global_rank
