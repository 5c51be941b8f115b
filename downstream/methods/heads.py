"""Heads on an encoder that tell good from defective images of some categories, and are asked about others.

They see nothing of the category that is tested: what they know of defects comes from the labelled images of the
training categories. Of these, 15 % are held out to choose a head's strength or to stop its training; where every score
counts the same, classes weigh alike however many images they have.
"""

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor
from torch.nn import functional as F

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
    stretched,
)
from baselines.contract.split import Split, split_samples
from pretrain.encoder import DEFAULT_ARCHITECTURE, LEVELS, Encoder, asked_encoder, load_encoder
from pretrain.folding import folded
from pretrain.progress import Progress
from pretrain.training.device import full_precision
from pretrain.weights import IMAGENET

ENCODER_FILE = "encoder.safetensors"


def class_weights(labels: Tensor) -> Tensor:
    """For each of the labels (n,), 0 or 1, the weight with which both classes count alike and the mean is 1."""
    share = labels.mean()
    return torch.where(labels > 0, 0.5 / share.clamp(min=1e-9), 0.5 / (1 - share).clamp(min=1e-9))


@dataclass(kw_only=True, eq=False, repr=False)
class Head(ABC):
    """What all heads share. `encoder` is an Encoder, an encoder file, or what `make_encoder` starts from: random (with
    `architecture` and `seed`), imagenet, a .pth. Images are stretched to squares of `input_px`, or stay as they come
    with none. An image's score is minus the logarithm of the probability that it is good."""

    encoder: Encoder | str = IMAGENET
    architecture: str = DEFAULT_ARCHITECTURE
    input_px: int | None = 224
    seed: int = 0
    batch_size: int = 32

    sees_normals: ClassVar[bool] = False
    device: ClassVar[torch.device] = CPU

    @abstractmethod
    def _learn(self, training: Sequence[Sample], parts: Split) -> None:
        """Learn from the learning part, choose by the validation part."""

    @abstractmethod
    def _predict_batch(self, images: Tensor) -> Prediction:
        """Images (b, 3, h, w) -> their scores and maps."""

    def fit(self, training: Sequence[Sample]) -> Self:
        """Learn from labelled images, good and defective. `normal_scores_` are those of held-out good ones."""
        forget(self)
        parts = split_samples(training, self.seed)
        self._learn(training, parts)
        move(self, self.device)  # what was chosen by looks at all features, in main memory
        self.normal_scores_ = torch.zeros(0, device=self.device)
        normals = [training[i].image for i in parts.validation if not parts.labels[i]]
        scores = [prediction.scores for prediction in self.predict(normals)]
        self.normal_scores_ = torch.cat([self.normal_scores_, *scores])
        return self

    def refer(self, normals: Sequence[Tensor]) -> Self:
        """Learns nothing of the tested category."""
        return self

    def predict(self, images: Iterable[Tensor]) -> Iterator[Prediction]:
        """Scores (b,), batch by batch, and maps where a head has any."""
        if not hasattr(self, "normal_scores_"):
            raise NotFitted(f"{type(self).__name__} has not learned yet: call fit first.")
        for batch in batches(images, self.batch_size, self.device):
            with torch.inference_mode(), full_precision():
                scores, maps = predicted(self._predict_batch, batch)
            yield Prediction(scores.float(), maps)

    def to(self, device: torch.device | str) -> Self:
        for opened in ("_encoder", "_folded"):
            vars(self).pop(opened, None)
        return move(self, device)

    def save(self, folder: Path) -> None:
        """Write the head and its encoder; nothing else is needed to load them elsewhere."""
        encoder = self._used_encoder()
        encoder.save(folder / ENCODER_FILE)
        saved = copy.copy(self)
        saved.encoder = ENCODER_FILE
        vars(saved).pop("tuned_", None)
        save_method(saved, folder)

    @classmethod
    def load(cls, folder: Path) -> Self:
        head = load_method(cls, folder)
        head.encoder = load_encoder(folder / ENCODER_FILE)
        return head

    def _used_encoder(self) -> Encoder:
        """On the method's device; an encoder that was given stays where it is."""
        if "_encoder" not in vars(self):
            given = asked_encoder(self.encoder, self.architecture, self.seed)
            self._encoder = given if given.mean.device == self.device else copy.deepcopy(given).to(self.device)
        return self._encoder


@dataclass(kw_only=True, eq=False, repr=False)
class PooledFeatureHead(Head):
    """A head on averages over the image of the maps of `levels`, each channel in units of its spread."""

    levels: Sequence[str] = LEVELS

    def _learn(self, training: Sequence[Sample], parts: Split) -> None:
        features = []
        with Progress("reading features", len(training)) as progress, torch.inference_mode(), full_precision():
            for images in batches((training[i].image for i in range(len(training))), LEARNING_BATCH, self.device):
                features.append(self._averages(images).cpu())
                progress.advance(len(images))
        averages = torch.cat(features).clone()  # (n, d)
        self.center_ = averages[parts.train].mean(0)
        self.unit_ = averages[parts.train].std(0).clamp(min=1e-6 * float(averages.abs().mean()) + 1e-12)
        self._learn_features((averages - self.center_) / self.unit_, parts)

    @abstractmethod
    def _learn_features(self, features: Tensor, parts: Split) -> None:
        """The same from features (n, d) of all training images."""

    def _averages(self, images: Tensor) -> Tensor:
        """(b, 3, h, w) -> (b, d)."""
        if "_folded" not in vars(self):  # this head never trains it
            self._folded = folded(self._used_encoder())
        images = stretched(images, self.input_px).contiguous(memory_format=torch.channels_last)
        maps = self._folded(images, tuple(self.levels))
        return torch.cat([part.mean((2, 3)) for part in maps.values()], dim=1)

    def _features(self, images: Tensor) -> Tensor:
        return (self._averages(images) - self.center_) / self.unit_


@dataclass(kw_only=True, eq=False, repr=False)
class LogisticHead(PooledFeatureHead):
    """Logistic regression. Of `strengths`, scikit-learn's C, the one is taken that tells held-out images best."""

    strengths: Sequence[float] = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)

    def _learn_features(self, features: Tensor, parts: Split) -> None:
        learned, labels = features[parts.train].double().numpy(), parts.labels[parts.train].numpy()
        tried = []
        for strength in self.strengths:
            model = LogisticRegression(C=strength, class_weight="balanced", max_iter=2000).fit(learned, labels)
            weights, offset = torch.from_numpy(model.coef_[0]), torch.from_numpy(model.intercept_)
            logits = features[parts.validation].double() @ weights + offset
            tried.append((balanced_loss(logits, parts.labels[parts.validation]), strength, weights, offset))
        _, self.strength_, self.weights_, self.offset_ = min(
            tried, key=lambda result: result[:2]
        )  # of equal losses the stronger penalty

    def _predict_batch(self, images: Tensor) -> Prediction:
        logits = self._features(images).double() @ self.weights_ + self.offset_
        return Prediction(F.softplus(logits), None)


@dataclass(kw_only=True, eq=False, repr=False)
class KnnHead(PooledFeatureHead):
    """The nearest labelled images vote, by cosine similarity over `temperature`; of `neighbor_counts` the one is taken
    that tells held-out images best."""

    neighbor_counts: Sequence[int] = (5, 20, 50)
    temperature: float = 0.1

    def _learn_features(self, features: Tensor, parts: Split) -> None:
        self.features_ = F.normalize(features[parts.train], dim=1)
        self.votes_ = class_weights(parts.labels[parts.train])
        self.labels_ = parts.labels[parts.train]
        asked = F.normalize(features[parts.validation], dim=1)
        tried = []
        for count in self.neighbor_counts:
            tried.append((balanced_loss(self._logits(asked, count), parts.labels[parts.validation]), count))
        _, self.num_neighbors_ = min(tried)

    def _predict_batch(self, images: Tensor) -> Prediction:
        return Prediction(
            F.softplus(self._logits(F.normalize(self._features(images), dim=1), self.num_neighbors_)), None
        )

    def _logits(self, features: Tensor, count: int) -> Tensor:
        """Features (b, d) -> log of the votes for defective over those for good ones (b,). Every image has a vote of
        each kind that weighs as one of similarity 0, so that no logarithm is infinite."""
        similarities = (features @ self.features_.T).double()  # (b, n)
        nearest = similarities.topk(min(count, len(self.features_)), dim=1)
        votes = (nearest.values / self.temperature).exp() * self.votes_[nearest.indices]
        is_defective = self.labels_[nearest.indices] > 0
        defective, good = (votes * is_defective).sum(1), (votes * ~is_defective).sum(1)
        return (1 + defective).log() - (1 + good).log()


def balanced_loss(logits: Tensor, labels: Tensor) -> float:
    """Mean cross-entropy of logits (n,) with both classes alike; without images all are as good."""
    if not len(labels):
        return 0.0
    losses = F.binary_cross_entropy_with_logits(logits.double(), labels.double(), reduction="none")
    return float((losses * class_weights(labels)).mean())
