"""The whole encoder trained on labeled images of some categories, as a method that is asked about others."""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from baselines.contract.method import LEARNING_BATCH, Prediction, Sample, batches, stretched
from downstream.methods.heads import Head, Split, balanced_loss, class_weights
from pretrain.encoder import LEVELS, Encoder
from pretrain.progress import Progress


@dataclass(kw_only=True, eq=False, repr=False)
class FineTuned(Head):
    """The whole encoder and a linear layer, trained with Adam until the loss on held-out images has not fallen for
    `patience` epochs; the best epoch counts. Half of the images are mirrored, anew in every epoch."""

    epochs: int = 10
    patience: int = 3
    learning_rate: float = 1e-4
    train_batch: int = 32

    def _learn(self, training: Sequence[Sample], parts: Split) -> None:
        generator = torch.Generator().manual_seed(self.seed)
        self.tuned_ = copy.deepcopy(self._given_encoder()).requires_grad_(True).to(memory_format=torch.channels_last)
        width = self.tuned_.channels[LEVELS[-1]]
        self.weights_, self.offset_ = (torch.zeros(size, device=self.device, requires_grad=True) for size in (width, 1))
        optimizer = torch.optim.Adam(
            [
                {"params": list(self.tuned_.parameters())},
                {"params": [self.weights_, self.offset_], "lr": 10 * self.learning_rate},
            ],
            lr=self.learning_rate,
        )
        weights = torch.zeros(len(training))
        weights[parts.train] = class_weights(parts.labels[parts.train])
        best, since = None, 0
        with Progress("fine-tuning", self.epochs * len(parts.train)) as progress:
            for epoch in range(self.epochs):
                self.tuned_.train()
                order = [parts.train[i] for i in torch.randperm(len(parts.train), generator=generator).tolist()]
                for batch in _groups(order, self.train_batch):
                    images = torch.stack([training[i].image for i in batch])
                    mirrored = torch.rand(len(batch), generator=generator) < 0.5
                    images = torch.where(mirrored[:, None, None, None], images.flip(3), images).to(self.device)
                    logits = self._logits(images)
                    losses = F.binary_cross_entropy_with_logits(
                        logits, parts.labels[batch].to(logits.device), reduction="none"
                    )
                    optimizer.zero_grad()
                    (losses * weights[batch].to(logits.device)).mean().backward()
                    optimizer.step()
                    progress.advance(len(batch), note=f"epoch {epoch + 1}")
                loss = self._validation_loss(training, parts)
                if best is None or loss < best[0]:
                    best, since = (loss, copy.deepcopy(self._state())), 0
                else:
                    since += 1
                if since == self.patience:
                    break
        self._restore(best[1])

    def _predict_batch(self, images: Tensor) -> Prediction:
        return Prediction(F.softplus(self._logits(images)), None)

    def _logits(self, images: Tensor) -> Tensor:
        images = stretched(images, self.input_px).contiguous(memory_format=torch.channels_last)
        pooled = self._used_encoder().pooled(images)
        return pooled @ self.weights_ + self.offset_

    def _validation_loss(self, training: Sequence[Sample], parts: Split) -> float:
        self.tuned_.eval()
        logits = [torch.zeros(0)]
        with torch.inference_mode():
            for images in batches((training[i].image for i in parts.validation), LEARNING_BATCH, self.device):
                logits.append(self._logits(images).cpu())
        return balanced_loss(torch.cat(logits), parts.labels[parts.validation])

    def _state(self) -> tuple[dict, Tensor, Tensor]:
        return self.tuned_.state_dict(), self.weights_.detach(), self.offset_.detach()

    def _restore(self, state: tuple[dict, Tensor, Tensor]) -> None:
        weights, self.weights_, self.offset_ = state
        self.tuned_.load_state_dict(weights)
        self.tuned_.eval().requires_grad_(False)

    def _given_encoder(self) -> Encoder:
        return super()._used_encoder()

    def _used_encoder(self) -> Encoder:
        """The tuned one, which is also what a loaded method was given."""
        return vars(self).get("tuned_") or super()._used_encoder()


def _groups(order: Sequence[int], size: int) -> Iterator[list[int]]:
    """Batches; a single image at the end is left out, since batch normalization needs several."""
    for start in range(0, len(order), size):
        batch = list(order[start : start + size])
        if len(batch) > 1:
            yield batch
