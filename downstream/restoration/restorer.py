"""A restorer whose eyes are an encoder: pretrained, ImageNet's, or random."""

import copy
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from baselines.restoration.restorer import NetworkRestorer
from downstream.restoration.network import PREFIX, EncoderRestoration
from pretrain.command import UserError
from pretrain.encoder import Encoder, asked_encoder, load_encoder
from pretrain.folding import folded

ENCODER_FILE = "encoder.safetensors"


@dataclass(kw_only=True, eq=False, repr=False)
class EncoderRestorer(NetworkRestorer):
    """`encoder` is an encoder, its file, random or imagenet; random weights are of `architecture` and the seed.

    It is left as it is up to the share `frozen` of the training and then tuned, with 1 never. Of the loss, minus PSNR
    alone is left.
    """

    encoder: Encoder | Path | str = "random"
    architecture: str = "resnet18"
    channels: int = 64
    blocks: int = 3
    frozen: float = 0.5
    learning_rate: float = 1e-3
    loss_weights: tuple[float, ...] = (0.0, 0.0, 0.5)

    def make_network(self) -> nn.Module:
        if not 0 <= self.frozen <= 1:
            raise UserError(f"frozen {self.frozen} is no share of the training: give one from 0 (never) to 1 (always).")
        # A copy: tuning must not reach the encoder of whoever gave it.
        encoder = copy.deepcopy(asked_encoder(self.encoder, self.architecture, self.seed))
        return EncoderRestoration(encoder, self.channels, self.blocks, self.frozen)

    @property
    def saw(self) -> tuple[str, ...]:
        origin = asked_encoder(self.encoder, self.architecture, self.seed).origin
        return origin.categories if origin else ()

    def for_use(self, network: nn.Module) -> nn.Module:
        ready = copy.copy(network)
        ready._modules = {**network._modules, "encoder": folded(network.encoder)}
        return ready

    def save(self, folder: Path) -> None:
        """Write the encoder, as it was tuned, to a file of its own, and the rest."""
        self.network_.encoder.save(folder / ENCODER_FILE)
        saved = copy.copy(self)
        saved.encoder = ENCODER_FILE
        NetworkRestorer.save(saved, folder)

    def saved_state(self) -> dict[str, Tensor]:
        state = self.network_.state_dict()
        return {name: weights for name, weights in state.items() if not name.startswith(PREFIX)}

    def names_saved(self, network: nn.Module) -> list[str]:
        return [name for name in network.state_dict() if not name.startswith(PREFIX)]

    def loaded_network(self, folder: Path) -> nn.Module:
        self.encoder = load_encoder(folder / ENCODER_FILE)
        return self.make_network()
