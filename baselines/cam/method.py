"""Class activation maps as a method: it learns defects on some products and looks for them on others.

Recipe as published for VGG16, with what was wrong there put right: images are normalized as the pretrained weights
expect, a held-out part of the training categories ends the training, and a map's threshold does not depend on the map.
"""

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from baselines.cam.frozen_features import FrozenFeatures
from baselines.cam.network import (
    ANOMALY,
    GOOD,
    MIN_PX,
    RANDOM,
    VGG16,
    CamNetwork,
    check_start,
    make_network,
    title_of,
    untrained_backbone,
)
from baselines.cam.training import CamRecipe, CamTraining
from baselines.contract.method import (
    CPU,
    NotFitted,
    Prediction,
    Sample,
    batches,
    forget,
    load_method,
    move,
    predicted,
    save_method,
    stretched,
)
from baselines.contract.split import split_samples
from pretrain.command import UserError
from pretrain.encoder import DEFAULT_ARCHITECTURE
from pretrain.files import scratch_folder
from pretrain.training.device import full_precision, transferred
from pretrain.training.session import Session
from pretrain.weights import IMAGENET

# What a tensor of the network is called in a method's file.
PREFIX = "network."


@dataclass(kw_only=True, eq=False, repr=False)
class Cam:
    """`architecture` is vgg16 or any that an encoder can have; `weights` is random, imagenet, or a file. Of pretrained
    ones all but the last level is frozen, without them nothing. The score of an image is minus the logarithm of the
    probability that it is good; its map is the evidence for `anomaly` at each position, with a sign.

    `width` scales VGG16's channels, for trials and tests; `input_px` is the side that images are stretched to; by
    default they stay as they come. With `cached`, what frozen layers give is computed once.
    """

    architecture: str = DEFAULT_ARCHITECTURE
    weights: str = IMAGENET
    width: float = 1.0
    input_px: int | None = None
    epochs: int = 10
    train_batch: int = 40
    learning_rate: float = 1e-4
    patience: int = 3
    target_accuracy: float | None = None
    cached: bool = True
    seed: int = 0
    batch_size: int = 32

    sees_normals: ClassVar[bool] = False
    device: ClassVar[torch.device] = CPU

    def fit(self, training: Sequence[Sample]) -> Self:
        """Learn from labeled images, good and defective. `normal_scores_` and `normal_peaks_` are the scores and the
        maps' highest values of held-out good ones."""
        with self.prepare(training) as prepared:
            prepared.train(partial(Session, f"training {self.title}"))
            return self.finish(training, prepared)

    @contextmanager
    def prepare(self, samples: Sequence[Sample], file: Path | None = None) -> Iterator[CamTraining]:
        """A training that is ready to begin; what was learned before is forgotten. `file` is where the frozen layers'
        results are kept, by default one that is gone at the end."""
        forget(self)
        recipe = self.recipe()
        split = split_samples(samples, self.seed)
        network = make_network(self.architecture, self.weights, self.width, self.seed).to(self.device)

        def early(positions: Sequence[int]) -> Tensor:
            return network.early(self._fitting(torch.stack([samples[i].image for i in positions])))

        if not (network.is_frozen and network.is_cut and self.cached):
            yield CamTraining(network, early, split, recipe)
            return
        with scratch_folder("heldout-frozen") as folder:  # a killed process would leave gigabytes in another one
            file = file or folder / "frozen.f32"
            frozen = FrozenFeatures(early, len(samples), file, self.train_batch)
            yield CamTraining(network, _on(frozen, self.device), split, recipe)

    def recipe(self) -> CamRecipe:
        """How to train. Raises UserError for values that could teach nothing, or weights that are not there."""
        recipe = CamRecipe(
            self.epochs, self.train_batch, self.learning_rate, self.patience, self.target_accuracy, self.seed
        )
        recipe.check()
        check_start(self.architecture, self.weights, self.input_px)
        return recipe

    def finish(self, samples: Sequence[Sample], training: CamTraining) -> Self:
        """Take the best network of a training, and the scores of the good images that it held out."""
        self.network_ = training.learner.best.eval()
        self.normal_scores_ = self.normal_peaks_ = torch.zeros(0, device=self.device)
        normals = [samples[i].image for i in training.split.validation if not training.split.labels[i]]
        predictions = list(self.predict(normals))
        self.normal_scores_ = torch.cat([self.normal_scores_, *(prediction.scores for prediction in predictions)])
        peaks = [prediction.maps.flatten(1).amax(1) for prediction in predictions]
        self.normal_peaks_ = torch.cat([self.normal_peaks_, *peaks])
        return self

    def refer(self, normals: Sequence[Tensor]) -> Self:
        """Learns nothing of the tested category."""
        return self

    def predict(self, images: Iterable[Tensor]) -> Iterator[Prediction]:
        """Scores (b,) and maps (b, h, w), batch by batch."""
        if not hasattr(self, "network_"):
            raise NotFitted(f"{type(self).__name__} has not learned yet: call fit first.")
        for batch in batches(images, self.batch_size, self.device):
            yield predicted(self._predict_batch, batch)

    @torch.inference_mode()
    @full_precision()
    def _predict_batch(self, images: Tensor) -> Prediction:
        late = self.network_.late(self.network_.early(self._fitting(images)))
        logits = self.network_.logits(late).double()
        # -log P(good) = log(1 + exp(anomaly - good)): unlike a probability it does not saturate at 1.
        scores = F.softplus(logits[:, ANOMALY] - logits[:, GOOD])
        maps = self.network_.activation_maps(late)[:, None]
        return Prediction(scores.float(), F.interpolate(maps, images.shape[-2:], mode="bilinear")[:, 0])

    def to(self, device: torch.device | str) -> Self:
        return move(self, device)

    def save(self, folder: Path) -> None:
        """Write the network and what was learned; nothing else is needed to load them elsewhere."""
        saved = copy.copy(self)
        for name, weights in vars(saved).pop("network_").state_dict().items():
            setattr(saved, f"{PREFIX}{name}_", weights.cpu())
        save_method(saved, folder)

    @classmethod
    def load(cls, folder: Path) -> Self:
        method = load_method(cls, folder)
        names = [name for name in vars(method) if name.startswith(PREFIX)]
        state = {name.removeprefix(PREFIX).removesuffix("_"): vars(method).pop(name) for name in names}
        network = CamNetwork(untrained_backbone(method.architecture, method.width))
        try:
            network.load_state_dict(state)
        except RuntimeError:
            raise UserError(f"{folder} does not hold the weights of a {method.title}: fit the method again.") from None
        method.network_ = network.eval().requires_grad_(False)
        return method

    @property
    def title(self) -> str:
        return title_of(self.architecture)

    @property
    def saw(self) -> tuple[str, ...]:
        """The categories that the weights it starts from have seen."""
        return check_start(self.architecture, self.weights, self.input_px)

    def _fitting(self, images: Tensor) -> Tensor:
        """Images as the network takes them. Raises UserError for sizes that it cannot take."""
        images = stretched(images.to(self.device), self.input_px)  # (b, 3, h, w)
        if min(images.shape[-2:]) < MIN_PX:
            height, width = images.shape[-2:]
            too_small = f"images of {width} x {height} px are too small for {self.architecture}"
            raise UserError(f"{too_small}: give {MIN_PX} px or more.")
        return images


@dataclass(kw_only=True, eq=False, repr=False)
class VggCam(Cam):
    """The same on VGG16, as published; from random weights unless others are given, since ImageNet's are a download."""

    architecture: str = VGG16
    weights: str = RANDOM


def _on(source: Callable[[Sequence[int]], Tensor], device: torch.device) -> Callable[[Sequence[int]], Tensor]:
    return lambda positions: transferred(source(positions), device)
