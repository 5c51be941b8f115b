"""Two processes of one training."""

import os
import socket
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.context import ForkServerContext

import torch
import torch.distributed as dist
import torch.multiprocessing


def imported() -> ForkServerContext:
    """Starts processes that have imported what a training and an extraction need: alone each would take 6 s to."""
    context = get_context("forkserver")
    context.set_forkserver_preload(["pretrain.simclr", "embeddings.extract"])
    return context


def run_two_ranks(function: Callable, *arguments: object) -> None:
    """`function(rank, *arguments)` for both ranks, each in a process of its own."""
    imported()
    torch.multiprocessing.start_processes(function, arguments, nprocs=2, start_method="forkserver")


def run_as_torchrun(function: Callable, *arguments: object) -> None:
    """The same in the environment that torchrun gives."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    run_two_ranks(_in_its_environment, port, function, *arguments)


def _in_its_environment(rank: int, port: int, function: Callable, *arguments: object) -> None:
    torch.set_num_threads(1)
    numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "MASTER_PORT": port}
    os.environ |= {name: str(number) for name, number in numbers.items()}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "TORCHELASTIC_RUN_ID": "test", "GROUP_RANK": "0"}
    function(rank, *arguments)
    dist.barrier()
    dist.destroy_process_group()
    os._exit(0)  # see test_loss.py
