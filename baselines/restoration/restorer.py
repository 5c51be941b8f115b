"""A restorer around any network from a degraded image to a clean one: train, restore, save, load."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from baselines.contract.method import CPU, NotFitted, Pair, forget, load_method, move, save_method
from baselines.restoration.pairs import CroppedPairs, PairBatch
from baselines.restoration.sadnet_network import SadNet
from baselines.restoration.tiling import restore_in_tiles, tile_px_for
from baselines.restoration.training import RestorerRecipe, RestorerTraining
from pretrain.command import UserError, is_gpu_full
from pretrain.training.device import full_precision, transferred
from pretrain.training.session import Session

# Before the names of the network's tensors in a restorer's file.
PREFIX = "network."
DEFAULT_MEMORY_MB = 2000.0


@dataclass(kw_only=True, eq=False, repr=False)
class NetworkRestorer(ABC):
    """`crop_px` is the side of the crops it learns from; `memory_mb` bounds the network's memory when it restores.
    `RestorerRecipe` and `restoration_loss` explain the other arguments.
    """

    steps: int = 1000
    batch_size: int = 4
    crop_px: int = 96
    learning_rate: float = 1e-4
    warmup: float = 0.05
    half_cosines: int = 1
    alpha: float = 1.0
    beta: float = 2.0
    loss_weights: Sequence[float] = (1.0, 0.0, 0.5)
    weighting: str = "repaired"
    memory_mb: float = DEFAULT_MEMORY_MB
    seed: int = 0

    device: ClassVar[torch.device] = CPU

    @abstractmethod
    def make_network(self) -> nn.Module:
        """A network to train. It has `bytes_per_pixel` and `stride`; see RestorerTraining for what else it may have."""

    @property
    def saw(self) -> tuple[str, ...]:
        """Categories that its encoder was pretrained on."""
        return ()

    def for_use(self, network: nn.Module) -> nn.Module:
        """The network for inference, which may be faster than the one that is trained."""
        return network

    @property
    def recipe(self) -> RestorerRecipe:
        values = {name: getattr(self, name) for name in RestorerRecipe.__dataclass_fields__}
        return RestorerRecipe(**values | {"loss_weights": tuple(self.loss_weights)})

    def fit(self, pairs: Sequence[Pair]) -> Self:
        """Learn from pairs of any size from `crop_px` up; forgets what was learned before."""
        source = pairs if hasattr(pairs, "batch") else CroppedPairs(pairs, self.crop_px, self.seed)
        training = self.prepare(source.batch)
        with Session(f"training {type(self).__name__}", training.network, training.optimizer) as session:
            session.steps = self.steps
            for step in session:
                session.log(**training.train_step(step))
        return self.finish(training.network)

    def prepare(self, source: Callable[[Sequence[int]], PairBatch]) -> RestorerTraining:
        """A training before its first step; forgets what was learned before."""
        self._forget()
        self.recipe.check()
        # From the CPU's generator alone: torch.manual_seed would also reseed every GPU.
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(self.seed)
            network = self.make_network()
        return RestorerTraining(network.to(self.device), lambda numbers: source(numbers).to(self.device), self.recipe)

    def finish(self, network: nn.Module) -> Self:
        """Take a trained network."""
        self._forget()
        self.network_ = network.eval().requires_grad_(False)
        return self

    def restore(self, images: Tensor) -> Tensor:
        """float32 (b, 3, h, w) in [0, 1] of any size -> the same shape and range, on the CPU.

        Raises NotFitted, and UserError where an image has values that are NaN or infinite.
        """
        if not hasattr(self, "network_"):
            raise NotFitted(f"{type(self).__name__} has not learned yet: call fit first.")
        if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
            raise ValueError(f"images must be float32 (b, 3, h, w), not {images.dtype} {tuple(images.shape)}.")
        if not images.isfinite().all():
            raise UserError("an image to restore has values that are NaN or infinite: make it again, or leave it out.")
        if "_inference_network" not in vars(self):
            self._inference_network = self.for_use(self.network_)

        def restore_tile(tile: Tensor) -> Tensor:
            return self._inference_network(tile).clamp(0, 1)

        restored = torch.empty_like(images, device="cpu")
        # One by one: neighbors change nothing, and memory is that of one image.
        with torch.inference_mode(), full_precision():
            for position, image in enumerate(images):
                image = transferred(image[None].float(), self.device)
                restored[position] = self._in_tiles_that_fit(restore_tile, image)[0]
        return restored

    def _in_tiles_that_fit(self, restore_tile: Callable[[Tensor], Tensor], image: Tensor) -> Tensor:
        """In tiles of what `memory_mb` allows, and of less where a GPU has less."""
        while True:
            try:
                return restore_in_tiles(restore_tile, image, self.tile_px)
            except RuntimeError as error:  # its traceback holds what takes the memory, and is gone after these lines
                if not is_gpu_full(error):
                    raise
            torch.cuda.empty_cache()
            self.memory_mb /= 2

    def to(self, device: torch.device | str) -> Self:
        vars(self).pop("_inference_network", None)
        return move(self, device)

    @property
    def tile_px(self) -> int:
        """The largest square that is restored at once. Raises UserError where `memory_mb` is too little for any."""
        return tile_px_for(self.memory_mb, self.network_.bytes_per_pixel, self.network_.stride)

    def save(self, folder: Path) -> None:
        """Write the network and the arguments it was trained with; loading needs nothing else."""
        saved = copy.copy(self)
        for name, weights in self.saved_state().items():
            setattr(saved, f"{PREFIX}{name}_", weights.cpu())
        del saved.network_
        save_method(saved, folder)

    def saved_state(self) -> dict[str, Tensor]:
        """The weights that go into the restorer's own file."""
        return self.network_.state_dict()

    @classmethod
    def load(cls, folder: Path) -> Self:
        """A restorer that restores bit for bit as the saved one. Raises UserError if the folder holds something
        else."""
        restorer = load_method(cls, folder)
        # load_method leaves the tensors as attributes; they are the network's, under their names in the file.
        names = [name for name in vars(restorer) if name.startswith(PREFIX)]
        state = {name.removeprefix(PREFIX).removesuffix("_"): vars(restorer).pop(name) for name in names}
        network = restorer.loaded_network(folder)
        try:
            # Not strict: a subclass keeps some of the weights, such as its encoder's, in a file of their own.
            missing, unexpected = network.load_state_dict(state, strict=False)
        except RuntimeError:  # a tensor of another shape
            missing = unexpected = list(state)
        if unexpected or set(missing) & set(restorer.names_saved(network)):
            raise UserError(f"{folder} does not hold the weights of this {cls.__name__}: train it anew.")
        return restorer.finish(network)

    def loaded_network(self, folder: Path) -> nn.Module:
        """A network for the weights in `folder`."""
        return self.make_network()

    def names_saved(self, network: nn.Module) -> list[str]:
        """Names of the weights that `saved_state` gives."""
        return list(network.state_dict())

    def _forget(self) -> None:
        forget(self)
        vars(self).pop("_inference_network", None)


@dataclass(kw_only=True, eq=False, repr=False)
class SadNetRestorer(NetworkRestorer):
    """`width` 32 is the published network of 4,234,723 parameters."""

    width: int = 32

    def make_network(self) -> nn.Module:
        return SadNet(self.width)
