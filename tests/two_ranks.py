"""Two processes of one training."""

from collections.abc import Callable
from multiprocessing import get_context

import torch.multiprocessing


def run_two_ranks(function: Callable, *arguments: object) -> None:
    """`function(rank, *arguments)` for both ranks, each in a process forked from a server that has imported what a
    training needs: alone each would take 6 s to."""
    get_context("forkserver").set_forkserver_preload(["pretrain.simclr"])
    torch.multiprocessing.start_processes(function, arguments, nprocs=2, start_method="forkserver")
