"""The contract that every method fulfills, so that a baseline and ours are interchangeable.

A method is an object of the shape of `Method`; nothing has to be inherited. Its constructor takes keyword arguments
only and stores them as they are; what it learns goes into attributes that end in `_`; whatever is random comes from an
argument `seed`. The score of an image depends on that image and on what was learned, never on its neighbors in a batch
or in the test set: 1e-5 relative in fp32 whatever the batch, the order, the process or the number of threads.

Images are float32 RGB in [0, 1], (3, h, w), all of one size in a call. Positive means ANOMALY; a higher score is more
anomalous.
"""

import inspect
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple, Protocol, Self, TypeVar, runtime_checkable

import torch
from torch import Tensor
from torch.nn import functional as F

from baselines.contract.model_folder import check_format
from pretrain.command import UserError
from pretrain.data.dataset import ImageSet
from pretrain.data.decode import read_mask
from pretrain.files import read_tensors, write_tensors
from pretrain.training.device import transferred
from pretrain.training.memory import in_parts

METHOD_FILE = "method.safetensors"
FORMAT = 2  # 2: arguments and classes have the field's names, such as coreset_ratio and PatchCore
# While learning: what is learned must not depend on the user's `batch_size`, not even by rounding, which a search for
# nearest neighbors or a training would amplify.
LEARNING_BATCH = 16
# Fewer images than asked for are taken at once where they are larger than 512 px: memory stays what it is for those.
MAX_PIXELS_AT_ONCE = 16 * 512**2
# Where a method learns and predicts until `to` moves it.
CPU = torch.device("cpu")

Loaded = TypeVar("Loaded")


class Sample(NamedTuple):
    """One labeled image: `image` float32 (3, h, w), `label` 1 for an anomaly, `mask` bool (h, w) or none."""

    image: Tensor
    label: int
    mask: Tensor | None
    category: str
    path: Path


@dataclass(frozen=True, eq=False)
class Prediction:
    """Of one batch: `scores` float32 (b,), `maps` float32 (b, h, w) at the size of the images, or none; `distances`
    float32 (b,) of each image as a whole to the nearest normal, where a method comes by them; `disagreements` float32
    (b,), how far the two statistics of a method that has two lie apart, each in standard deviations of normals."""

    scores: Tensor
    maps: Tensor | None
    distances: Tensor | None = None
    disagreements: Tensor | None = None

    def __iter__(self) -> Iterator[Tensor | None]:
        """What every method owes: `scores, maps = prediction`."""
        return iter((self.scores, self.maps))

    def cpu(self) -> "Prediction":
        """The same in main memory; a GPU is waited for."""
        return Prediction(*(part if part is None else part.cpu() for part in vars(self).values()))


@runtime_checkable
class Method(Protocol):
    """Tells defective images from good ones.

    `sees_normals` says whether `refer` learns from the test category's normals or ignores them. `normal_scores_` (n,)
    are scores of normals that the method did not learn from: a threshold is made of them. `batch_size` is how many
    images it takes at once, an argument of every method that must not matter. `device` is where it learns and predicts,
    the CPU until `to` says otherwise: predictions and `normal_scores_` lie there, images may come from anywhere.
    """

    sees_normals: bool
    batch_size: int
    device: torch.device
    normal_scores_: Tensor

    def fit(self, training: Sequence[Sample]) -> Self:
        """Learn from labeled images of the TRAINING categories; forgets what was learned before."""

    def refer(self, normals: Sequence[Tensor]) -> Self:
        """Take in normals of ONE test category; forgets the one before."""

    def predict(self, images: Iterable[Tensor]) -> Iterator[Prediction]:
        """Score images, batch by batch, in their order. Raises NotFitted before `fit` (and `refer`) were called."""

    def to(self, device: torch.device | str) -> Self:
        """Move all of it: 1e-4 relative between devices, and the same decisions."""

    def save(self, folder: Path) -> None:
        """Write all that `predict` needs; no pickle, and nothing of the device."""

    @classmethod
    def load(cls, folder: Path) -> Self:
        """A method on the CPU that predicts bit for bit as the saved one did there. Raises UserError if the folder
        holds something else."""


class Pair(NamedTuple):
    """A degraded image, the image it should be, both float32 (3, h, w), and the defect's mask, bool, or none."""

    degraded: Tensor
    clean: Tensor
    mask: Tensor | None


@runtime_checkable
class Restorer(Protocol):
    """Turns degraded images into clean ones without painting over their defects."""

    def fit(self, pairs: Sequence[Pair]) -> Self:
        """Learn from pairs; forgets what was learned before."""

    def restore(self, images: Tensor) -> Tensor:
        """(b, 3, h, w) in [0, 1] -> the same shape and range, on the CPU."""

    def to(self, device: torch.device | str) -> Self: ...

    def save(self, folder: Path) -> None: ...

    @classmethod
    def load(cls, folder: Path) -> Self: ...


class NotFitted(RuntimeError):
    """The method was asked before it had learned."""


class Images(Sequence[Tensor]):
    """Cached images (3, h, w), each made when it is asked for, `as_images`; without labels."""

    def __init__(self, images: ImageSet) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, position: int) -> Tensor:
        (pixels,) = self.images.batch([position])  # (h, w, 3)
        return as_images(torch.from_numpy(pixels))


class Samples(Sequence[Sample]):
    """The same as float32, with label, mask, category and path."""

    def __init__(self, images: ImageSet) -> None:
        self.images, self._images = images, Images(images)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, position: int) -> Sample:
        record = self.images.records[position]
        mask = read_mask(record.mask, self.images.size_px) if record.mask else None
        return Sample(
            as_floats(self._images[position]),
            int(record.is_anomaly),
            None if mask is None else torch.from_numpy(mask.copy()),
            record.category,
            record.path,
        )


def as_images(pixels: Tensor) -> Tensor:
    """Pixels uint8 (..., h, w, 3) as images (..., 3, h, w): float32 in [0, 1]. Large ones stay the bytes that they are
    until a method looks at a part, as four times as many take gigabytes; `batches` makes floats of them for one that
    does not."""
    images = pixels.movedim(-1, -3)
    return images if math.prod(images.shape[-2:]) > MAX_PIXELS_AT_ONCE else as_floats(images)


def as_floats(images: Tensor) -> Tensor:
    """Images, bytes or not, as float32 in [0, 1]."""
    return images.float().div_(255) if images.dtype == torch.uint8 else images


def batches(
    images: Iterable[Tensor],
    batch_size: int,
    device: torch.device = CPU,
    may_be_bytes: bool = False,
    most_pixels: int | None = None,
) -> Iterator[Tensor]:
    """Stack images (3, h, w) into (b, 3, h, w) on a device, in one transfer; the last batch may be smaller. Large ones
    are bytes, as they come, where that `may_be`. `most_pixels` are those of `at_once`. Raises UserError for unequal
    sizes."""
    remaining = iter(images)
    while first := list(islice(remaining, 1)):
        batch = first + list(islice(remaining, at_once(batch_size, first[0].shape[-2:], most_pixels) - 1))
        if len(shapes := {tuple(image.shape) for image in batch}) > 1:
            raise UserError(f"images of {len(shapes)} sizes in one call, such as {shapes.pop()}: give them one size.")
        stacked = transferred(torch.stack(batch) if len(batch) > 1 else batch[0][None], device)
        del first, batch  # which take as much again
        yield stacked if may_be_bytes else as_floats(stacked)
        del stacked


def at_once(batch_size: int, shape: Sequence[int], most_pixels: int | None = None) -> int:
    """How many images (h, w) of a batch to take at once: those of `most_pixels`, MAX_PIXELS_AT_ONCE by default."""
    return max(1, min(batch_size, (most_pixels or MAX_PIXELS_AT_ONCE) // math.prod(shape)))


def stretched(images: Tensor, side_px: int | None) -> Tensor:
    """Images (b, 3, h, w) as squares of `side_px`; as they are with none."""
    if side_px is None or images.shape[-2:] == (side_px, side_px):
        return images
    return F.interpolate(images, (side_px, side_px), mode="bilinear", antialias=True)


def predicted(predict: Callable[[Tensor], Prediction], images: Tensor) -> Prediction:
    """What `predict` says of a batch, in parts where a GPU's memory is short."""
    parts = in_parts(predict, images)
    if len(parts) == 1:
        return parts[0]
    columns = zip(*(vars(part).values() for part in parts), strict=True)
    return Prediction(*(None if column[0] is None else torch.cat(column) for column in columns))


def move(method: Loaded, device: torch.device | str) -> Loaded:
    """What `to` does: everything that was learned, tensors, networks and sums, goes to the device, and so does what is
    learned later."""
    method.device = torch.device(device)
    for name, value in vars(method).items():
        if name.endswith("_") and hasattr(value, "to"):
            setattr(method, name, value.to(method.device))
    return method


def forget(method: object) -> None:
    """Take away all that a method learned: its attributes that end in `_`."""
    for name in [name for name in vars(method) if name.endswith("_")]:
        delattr(method, name)


def save_method(method: object, folder: Path) -> None:
    """Write a method's arguments and everything that it learned, its attributes that end in `_`, to `folder`.

    What was learned must be tensors, or what JSON gives back as it was: numbers, text, booleans, none, lists, dicts.
    """
    write_tensors(folder / METHOD_FILE, *described(method))


def described(method: object) -> tuple[dict[str, Tensor], dict]:
    """What `save_method` writes of a method: tensors, and the rest as plain JSON."""
    learned = {name: value for name, value in vars(method).items() if name.endswith("_")}
    tensors = {name: value.cpu() for name, value in learned.items() if isinstance(value, Tensor)}
    metadata = {
        "format": FORMAT,
        "method": type(method).__name__,
        "arguments": {name: getattr(method, name) for name in _argument_names(type(method))},
        "learned": {name: value for name, value in learned.items() if name not in tensors},
    }
    return tensors, metadata


def read_method(folder: Path) -> tuple[dict[str, Tensor], dict]:
    """The tensors and metadata that `save_method` wrote to `folder`. Raises UserError for files of another format."""
    path = folder / METHOD_FILE
    tensors, metadata = read_tensors(path)
    if "method" not in metadata:
        raise UserError(f"{path} holds a file that is no method: fit one, or name its folder.")
    check_format(path, metadata.get("format", 1), FORMAT)
    return tensors, metadata


def load_method(cls: type[Loaded], folder: Path) -> Loaded:
    """The method of class `cls` that `save_method` wrote to `folder`. Raises UserError where there is no such
    method."""
    return restored(cls, folder / METHOD_FILE, *read_method(folder))


def restored(cls: type[Loaded], path: Path, tensors: Mapping[str, Tensor], metadata: dict) -> Loaded:
    """The method of class `cls` that was `described` so in a file. Raises UserError where it is another one."""
    if metadata["method"] != cls.__name__:
        raise UserError(f"{path} holds a {metadata['method']}, not a {cls.__name__}.")
    try:
        arguments = metadata["arguments"]
        arguments.pop("device", None)  # an argument of some until 0.1; now `to` says where a method works
        method = cls(**arguments)
    except (KeyError, TypeError) as error:
        raise UserError(f"{path} does not fit this heldout's {cls.__name__} ({error}): fit the method again.") from None
    for name, value in {**metadata["learned"], **tensors}.items():
        setattr(method, name, value)
    return method


def _argument_names(cls: type) -> list[str]:
    return list(inspect.signature(cls).parameters)
