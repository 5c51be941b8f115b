"""The restorer with an encoder in it, pretrained, ImageNet's or random; how it is made from options, and loaded."""

import copy
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from baselines.contract.method import METHOD_FILE
from baselines.restoration.restorer import NetworkRestorer, SadNetRestorer
from baselines.restoration.run import shared_arguments
from downstream.restoration.config import Train
from downstream.restoration.network import PREFIX, EncoderRestoration
from embeddings.encoding import choose_encoder
from pretrain.command import UserError
from pretrain.demo import is_demo
from pretrain.encoder import DEFAULT_ARCHITECTURE, Encoder, asked_encoder, load_encoder
from pretrain.files import read_tensors
from pretrain.folding import folded
from pretrain.weights import IMAGENET

ENCODER_FILE, RANDOM = "encoder.safetensors", "random"


@dataclass(kw_only=True, eq=False, repr=False)
class EncoderRestorer(NetworkRestorer):
    """`encoder` is an encoder, its file, imagenet or random, of `architecture` and, where random, of the seed.

    It is not trained up to the share `frozen` of the training; with 1 never. The loss is minus PSNR alone.
    """

    encoder: Encoder | Path | str = IMAGENET
    architecture: str = DEFAULT_ARCHITECTURE
    channels: int = 64
    blocks: int = 3
    frozen: float = 0.5
    learning_rate: float = 1e-3
    loss_weights: tuple[float, ...] = (0.0, 0.0, 0.5)

    def make_network(self) -> nn.Module:
        if not 0 <= self.frozen <= 1:
            raise UserError(f"frozen {self.frozen} is no share of the training: give 0 (never frozen) to 1 (always).")
        # A copy: training must not change the encoder of whoever gave it.
        encoder = copy.deepcopy(asked_encoder(self.encoder, self.architecture, self.seed))
        return EncoderRestoration(encoder, self.channels, self.blocks, self.frozen)

    @property
    def saw(self) -> tuple[str, ...]:
        origin = asked_encoder(self.encoder, self.architecture, self.seed).origin
        return origin.categories if origin else ()

    def for_use(self, network: nn.Module) -> nn.Module:
        quick = copy.copy(network)  # shares all weights but the encoder's
        quick._modules = {**network._modules, "encoder": folded(network.encoder)}
        return quick

    def save(self, folder: Path) -> None:
        """Write the encoder, as it was trained here, to a file of its own, and the rest."""
        self.network_.encoder.save(folder / ENCODER_FILE)
        saved = copy.copy(self)
        saved.encoder = ENCODER_FILE  # a module is no argument that could be written as JSON
        NetworkRestorer.save(saved, folder)

    def saved_state(self) -> dict[str, Tensor]:
        state = self.network_.state_dict()
        return {name: weights for name, weights in state.items() if not name.startswith(PREFIX)}

    def names_saved(self, network: nn.Module) -> list[str]:
        return [name for name in network.state_dict() if not name.startswith(PREFIX)]

    def loaded_network(self, folder: Path) -> nn.Module:
        self.encoder = load_encoder(folder / ENCODER_FILE)
        return self.make_network()


def make_restorer(config: Train) -> EncoderRestorer:
    """An untrained restorer with the encoder that was asked for."""
    own = {name: getattr(config, name) for name in ("channels", "blocks", "frozen")}
    return EncoderRestorer(encoder=chosen_encoder(config), **own, **shared_arguments(config))


def chosen_encoder(config: Train) -> Encoder:
    """The encoder that was asked for, or the default one; prints which, and the categories it was pretrained on."""
    if str(config.encoder) == RANDOM:  # the control of ImageNet's: the same architecture
        encoder, path = asked_encoder(RANDOM, seed=config.seed), RANDOM
    else:
        encoder, path = choose_encoder(config.encoder, config.seed, config.data is not None and is_demo(config.data))
    print(f"encoder: {path}, {encoder.history}")
    return encoder


def load_restorer(folder: Path) -> NetworkRestorer:
    """The restorer that was saved to a folder, ours or SADNet."""
    _, metadata = read_tensors(folder / METHOD_FILE)
    is_sadnet = metadata.get("method") == SadNetRestorer.__name__
    return (SadNetRestorer if is_sadnet else EncoderRestorer).load(folder)
