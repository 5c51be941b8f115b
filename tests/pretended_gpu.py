"""A GPU that is not there: tensors that say they lie on another device, and are computed on the CPU.

So a machine without a GPU finds what one with a GPU would stumble over: two devices in one operation are refused, as
CUDA refuses them, and what makes the CPU wait for the device is counted. What it cannot show is rounding and speed.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from typing import NamedTuple
from unittest.mock import patch

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

# Of all types of devices that torch knows, the one that it lets pass without a driver.
NAME = "lazy"
aten = torch.ops.aten
# CUDA takes indices from main memory too, and copies are what brings tensors from one to the other.
MAY_MIX = {aten.index.Tensor, aten.index_put_.default, aten.index_put.default, aten._index_put_impl_.default,
           aten.copy_.default, aten._to_copy.default}  # fmt: skip
MAKERS = {torch.tensor, torch.as_tensor, torch.Tensor.new_tensor}
MAKE_WAIT = {aten._local_scalar_dense.default, aten.nonzero.default, aten.masked_select.default}


class There(torch.Tensor):
    """A tensor there; `_real` has its values."""

    @staticmethod
    def __new__(cls, real: torch.Tensor) -> "There":
        layout = {"strides": real.stride(), "storage_offset": real.storage_offset(), "dtype": real.dtype}
        with torch.inference_mode(False):  # else views of weights would be of another sort than the weights
            made = cls._make_wrapper_subclass(cls, real.shape, device=NAME, requires_grad=real.requires_grad, **layout)
        made._real = real
        return made

    def __repr__(self) -> str:
        return f"There({self._real})"

    def tolist(self) -> list:
        return self.cpu().tolist()

    # Of lists and numbers torch would make tensors where no mode sees it.
    def __getitem__(self, where: object) -> torch.Tensor:
        return super().__getitem__(_as_tensors(where))

    def __setitem__(self, where: object, value: object) -> None:
        if not isinstance(value, torch.Tensor):
            value = torch.full((), value, dtype=self.dtype, device=NAME)
        super().__setitem__(_as_tensors(where), value)

    @classmethod
    def __torch_dispatch__(cls, operation, types, args=(), kwargs=None):
        raise AssertionError("a tensor of the pretended GPU outlived it")


def _as_tensors(where: object) -> object:
    if isinstance(where, tuple):
        return tuple(map(_as_tensors, where))
    return torch.tensor(list(where), dtype=torch.long) if isinstance(where, list | range) else where


@cache
def is_composite(operation) -> bool:
    """Whether it is made of others, which then pass instead."""
    composite = torch._C.DispatchKey.CompositeImplicitAutograd
    return torch._C._dispatch_has_kernel_for_dispatch_key(operation.name(), composite)


class Pretending(TorchDispatchMode):
    """Every operation of torch's passes through here."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []
        self.arrivals: list[torch.Size] = []

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if is_composite(operation):
            with self:
                return operation.decompose(*args, **kwargs)
        if There not in types and kwargs.get("device") is None and operation is not aten._to_copy.default:
            return operation(*args, **kwargs)  # all here, as most are
        flat = list(leaves((args, kwargs)))
        there = [value for value in flat if isinstance(value, There)]
        here = [value for value in flat if isinstance(value, torch.Tensor) and not isinstance(value, There)]
        if there and operation not in MAY_MIX and any(value.dim() for value in here):
            raise RuntimeError(f"{operation}: expected all tensors to be on the same device")
        asked = kwargs.get("device")
        goes_there = torch.device(asked).type == NAME if asked is not None else bool(there)
        self._count(operation, there, goes_there, args, kwargs)
        given = mapped(_real, (args, kwargs))
        result = operation(*given[0], **given[1])
        known = {id(value._real): value for value in there}

        def found(value: object) -> object:
            if not isinstance(value, torch.Tensor):
                return value
            if operation is aten._to_copy.default:
                value = value.clone() if value is given[0][0] else value
            if id(value) in known:  # an operation in place
                return known[id(value)]
            return There(value) if goes_there else value

        return mapped(found, result)

    def _count(self, operation, there: list, goes_there: bool, args: tuple, kwargs: dict) -> None:
        if operation is aten._to_copy.default and goes_there and not there:
            self.arrivals.append(args[0].shape)
            if not kwargs.get("non_blocking"):  # then torch waits until all that the GPU had to do is done
                self.waits.append("a copy that blocks")
        is_copied_back = operation is aten._to_copy.default and not goes_there
        picks_by_mask = operation in MAY_MIX and len(args) > 1 and isinstance(args[1], list | tuple) and any(
            isinstance(index, There) and index.dtype in (torch.bool, torch.uint8) for index in args[1]
        )  # fmt: skip
        if there and (operation in MAKE_WAIT or is_copied_back or picks_by_mask):
            self.waits.append(str(operation))


class Making(TorchFunctionMode):
    """Tensors made of numbers, which torch would make where no dispatch mode sees it, are made here and taken there."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function not in MAKERS:
            return function(*args, **kwargs)
        asked = kwargs.get("device") or (args[0].device if function is torch.Tensor.new_tensor else None)
        if asked is None:
            return function(*args, **kwargs)
        args = args[1:] if function is torch.Tensor.new_tensor else args
        dtype = kwargs.get("dtype") or (torch.float32 if isinstance(args[0], float) else None)
        return torch.tensor(*args, dtype=dtype).to(asked)


# What an operation is given and gives is nested in these alone; torch's own trees of anything take ten times as long.
def leaves(value: object) -> Iterator[object]:
    if isinstance(value, list | tuple | dict):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from leaves(inner)
    else:
        yield value


def mapped(function: Callable[[object], object], value: object) -> object:
    if isinstance(value, dict):
        return {name: mapped(function, inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)([mapped(function, inner) for inner in value])
    return function(value)


def _real(value: object) -> object:
    if isinstance(value, There):
        return value._real
    return torch.device("cpu") if isinstance(value, torch.device) else value


class Gpu(NamedTuple):
    """`waits` are the operations so far that made the CPU wait, `arrivals` the shapes of what was sent there."""

    device: torch.device
    waits: list[str]
    arrivals: list[torch.Size]


@contextmanager
def pretended_gpu() -> Iterator[Gpu]:
    pretending, autocast = Pretending(), torch.autocast

    def there_too(device_type: str, *args, **kwargs):
        return nullcontext() if device_type == NAME else autocast(device_type, *args, **kwargs)

    with patch.object(torch, "autocast", there_too), pretending, Making():
        yield Gpu(torch.device(NAME), pretending.waits, pretending.arrivals)
