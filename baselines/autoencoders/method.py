"""Auto-encoders as methods: they learn to reproduce good images of ONE category, and fail at what is not on them.

What an image and its reconstruction differ in is the map, smoothed. An image's score is the mean of the highest
hundredth of its map, as of patch statistics: the mean over all of it would drown a small defect, the highest pixel
alone would be noise.
"""

import copy
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import ClassVar, Self

import torch
from kornia.filters import gaussian_blur2d
from torch import Tensor, nn
from torch.nn import functional as F

from baselines.autoencoders.augmentation import check_augmentation
from baselines.autoencoders.losses import LOSSES, RESIDUALS, WINDOW_PX, check_window, gray, residual_map
from baselines.autoencoders.networks import architecture_of, make_network
from baselines.autoencoders.training import (
    Autocast,
    AutoEncoderRecipe,
    OpenSession,
    recipe_of,
    split_positions,
    train,
)
from baselines.contract.method import (
    CPU,
    LEARNING_BATCH,
    NotFitted,
    Prediction,
    Sample,
    batches,
    forget,
    load_method,
    move,
    predicted,
    save_method,
)
from pretrain.command import UserError, nearest
from pretrain.encoder import DEFAULT_ARCHITECTURE, asked_encoder
from pretrain.training.device import full_precision, transferred
from pretrain.training.session import Session
from pretrain.weights import IMAGENET

COLORS = {"rgb": 3, "gray": 1}
# A handful of normals makes epochs of one step: train for so many steps at least, unless `instances` says otherwise.
MIN_STEPS = 300
NETWORK = "network."


@dataclass(kw_only=True, eq=False, repr=False)
class AutoEncoder:
    """An auto-encoder of one category. What is none is what the architecture was published with; the rest is smaller,
    so that a category takes minutes on two cores.

    model: which architecture; a name of ARCHITECTURES.
    size_px: side of the square that images are reduced to; the architecture says which fit.
    width, latent, skips: channels, size of the bottleneck, skip connections; of the architectures that have them.
    start, backbone: weights and architecture of the encoder of `backbone`; random, imagenet, a .pth or an encoder file.
    loss: mse, l2, ssim or mssim, for SSIM with a window of `window_px`; color: rgb or gray.
    residual: the map, squared, absolute or ssim; by default what the loss suggests.
    epochs: passes over the normals; `instances`: images to train on in all, instead.
    train_batch: images in a step; few, so that a category's 200 or so give enough steps. `batch_size` is how many are
        predicted at once, which does not matter.
    blur: width of the Gaussian that smooths a map, as share of its side; top_share: see above.
    """

    model: str = "ae"
    size_px: int | None = 128
    width: int | None = 32
    latent: int | None = None
    skips: bool = False
    start: str = IMAGENET
    backbone: str = DEFAULT_ARCHITECTURE
    loss: str | None = None
    window_px: int = WINDOW_PX
    color: str = "rgb"
    residual: str | None = None
    epochs: int | None = 30
    instances: int | None = None
    train_batch: int | None = 8
    learning_rate: float | None = None
    weight_decay: float | None = None
    augmentation: str | None = None
    blur: float = 1 / 40
    top_share: float = 0.01
    seed: int = 0
    batch_size: int = 16

    sees_normals: ClassVar[bool] = True
    device: ClassVar[torch.device] = CPU

    def fit(self, training: Sequence[Sample]) -> Self:
        """Learns nothing of other categories; any earlier normals are forgotten."""
        forget(self)
        return self

    def refer(self, normals: Sequence[Tensor]) -> Self:
        """Learn from normals of one category, at least one; forgets the category before."""
        return self.learn(normals, partial(Session, f"training {architecture_of(self.model).title}"))

    def learn(
        self,
        normals: Sequence[Tensor],
        open_session: OpenSession,
        autocast: Autocast = nullcontext,
        min_steps: int = MIN_STEPS,
        minutes: float | None = None,
    ) -> Self:
        """`refer` in a session that may have a run, and so can be resumed; with `minutes` no longer than that.

        A tenth of the normals is held out: it chooses the best epoch. `normal_scores_` are theirs, `normal_peaks_` the
        highest values of their maps, `held_out_` their positions. There are none of a single normal.
        """
        self.fit([])
        if not len(normals):
            raise UserError("no normal images to refer to: give at least one.")
        learned, held_out = split_positions(len(normals), self.seed)
        recipe = self.recipe(len(learned), min_steps)
        network = self.make_network().to(self.device)

        def source(positions: Sequence[int]) -> Tensor:
            return self.shown(transferred(torch.stack([normals[position] for position in positions]), self.device))

        self.network_ = train(network, source, learned, held_out, recipe, self.seed, open_session, autocast, minutes)
        self.held_out_ = held_out
        held_out_batches = batches((normals[i] for i in held_out), LEARNING_BATCH, self.device)
        predictions = [self._predict(images) for images in held_out_batches]
        empty = torch.empty(0, device=self.device)
        self.normal_scores_ = torch.cat([empty, *(prediction.scores for prediction in predictions)])
        self.normal_peaks_ = torch.cat([empty, *(prediction.maps.flatten(1).amax(1) for prediction in predictions)])
        return self

    def predict(self, images: Iterable[Tensor]) -> Iterator[Prediction]:
        """Scores (b,) and maps (b, h, w), 0 or more, batch by batch."""
        self._check_fitted()
        for batch in batches(images, self.batch_size, self.device):
            yield predicted(self._predict, batch)

    @torch.no_grad()
    @full_precision()
    def reconstruct(self, images: Tensor) -> Tensor:
        """What the network makes of images (b, 3, h, w): (b, channels, size_px, size_px) in [0, 1]."""
        self._check_fitted()
        return self.network_(self.shown(images.to(self.device)))

    def to(self, device: torch.device | str) -> Self:
        return move(self, device)

    def shown(self, images: Tensor) -> Tensor:
        """Images (b, 3, h, w) as the network sees them: (b, channels, size_px, size_px)."""
        images = gray(images) if self.color == "gray" else images
        size = (self._size_px, self._size_px)
        if images.shape[-2:] == size:
            return images
        return F.interpolate(images, size, mode="bilinear", antialias=True).clamp(0, 1)

    def recipe(self, count: int, min_steps: int = 0) -> AutoEncoderRecipe:
        """How to train on `count` images. Raises UserError for a value with which nothing could be learned."""
        given = {"loss": self.loss, "augmentation": self.augmentation, "batch": self.train_batch, "epochs": self.epochs,
                 "learning_rate": self.learning_rate, "weight_decay": self.weight_decay}  # fmt: skip
        self._check()
        is_pretrained = self.model == "backbone" and self.start != "random"
        recipe = replace(recipe_of(self.model, is_pretrained, given), window_px=self.window_px)
        check_augmentation(recipe.augmentation)
        if self._residual == "ssim" or recipe.loss in ("ssim", "mssim"):
            check_window(torch.empty(self._size_px, self._size_px), self.window_px)
        return recipe.lasting(count, self.instances, min_steps)

    def make_network(self) -> nn.Module:
        """An untrained network. Raises UserError for a size or an option that the architecture does not have."""
        options = {"width": self.width, "latent": self.latent, "skips": self.skips or None}
        options = {name: value for name, value in options.items() if value is not None}
        if self.model == "backbone":
            encoder = asked_encoder(self.start, self.backbone, self.seed)
            self.backbone_ = encoder.architecture
            options["backbone"] = encoder
        return make_network(self.model, self._size_px, COLORS[self.color], self.seed, options)

    def save(self, folder: Path) -> None:
        """Write the method and its network; nothing else is needed to load them elsewhere."""
        saved = copy.copy(self)
        network = vars(saved).pop("network_", None)
        for name, weight in network.state_dict().items() if network is not None else ():
            setattr(saved, f"{NETWORK}{name}_", weight.cpu())
        save_method(saved, folder)

    @classmethod
    def load(cls, folder: Path) -> Self:
        method = load_method(cls, folder)
        saved = {name: vars(method).pop(name) for name in list(vars(method)) if name.startswith(NETWORK)}
        if saved:
            asked = copy.copy(method)
            # Of the backbone nothing but its shape is needed: its weights are here.
            asked.start, asked.backbone = "random", getattr(method, "backbone_", method.backbone)
            network = asked.make_network()
            try:
                network.load_state_dict({name[len(NETWORK) : -1]: weight for name, weight in saved.items()})
            except RuntimeError:
                raise UserError(
                    f"{folder} does not hold the weights of a {method.model}: fit the model again."
                ) from None
            method.network_ = network.eval().requires_grad_(False)
        return method

    @property
    def _size_px(self) -> int:
        return self.size_px or architecture_of(self.model).size_px

    @property
    def _residual(self) -> str:
        loss = self.loss or recipe_of(self.model).loss
        return self.residual or ("ssim" if loss in ("ssim", "mssim") else "squared")

    @torch.no_grad()
    @full_precision()
    def _predict(self, images: Tensor) -> Prediction:
        shown = self.shown(images)
        restored = self.network_(shown).float()
        maps = self._smooth(residual_map(restored, shown, self._residual, self.window_px))
        flat = maps.flatten(1)  # (b, size_px * size_px)
        scores = flat.topk(max(1, round(self.top_share * flat.shape[1])), dim=1).values.mean(1)
        if maps.shape[-2:] != images.shape[-2:]:
            maps = F.interpolate(maps[:, None], images.shape[-2:], mode="bilinear")[:, 0]
        return Prediction(scores, maps)

    def _smooth(self, maps: Tensor) -> Tensor:
        """(b, s, s) -> the same."""
        sigma_px = self.blur * maps.shape[-1]
        if sigma_px < 0.3:  # less than a pixel sees of its neighbors
            return maps
        side_px = 2 * math.ceil(3 * sigma_px) + 1
        return gaussian_blur2d(maps[:, None], side_px, (sigma_px, sigma_px))[:, 0]

    def _check(self) -> None:
        """Raise UserError for an argument with which nothing could be learned."""
        architecture_of(self.model)
        for name, value, allowed in (
            ("color", self.color, COLORS),
            ("loss", self.loss, LOSSES),
            ("residual", self.residual, RESIDUALS),
        ):
            if value is not None and value not in allowed:
                raise UserError(f"there is no {name} {value!r}; {nearest(value, allowed)}")
        for name in ("epochs", "instances", "train_batch", "learning_rate", "width", "latent", "top_share"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise UserError(f"{name} must be above 0, not {value}.")
        if self.top_share > 1 or not 0 <= self.blur <= 0.15:
            raise UserError(
                f"top_share {self.top_share} or blur {self.blur} will not do: at most 1, and from 0 to 0.15."
            )

    def _check_fitted(self) -> None:
        if not hasattr(self, "network_"):
            raise NotFitted(f"{type(self).__name__} has no normals yet: call refer first.")


@dataclass(kw_only=True, eq=False, repr=False)
class VariationalAutoEncoder(AutoEncoder):
    """The same with a distribution in the middle."""

    model: str = "vae"


@dataclass(kw_only=True, eq=False, repr=False)
class ConvolutionalAutoEncoder(AutoEncoder):
    """The family of convolutional auto-encoders, mvtec2 with SSIM unless asked for another."""

    model: str = "mvtec2"
    width: int | None = None
