"""Which product an image shows: the one whose good images it is nearest to, as a whole, or none of them.

Each model has its own measure: how far the mean of an image's patches lies from that of the nearest good image that the
model learned, in units of how far the good ones lie from each other. All that takes is in the models.
"""

import copy
import threading
from collections.abc import Mapping, Sequence
from typing import NamedTuple
from weakref import WeakValueDictionary

import torch
from torch import Tensor

from downstream.methods.normals import nearest_other
from downstream.methods.patch_method import PatchMethod
from downstream.service.decoding import RefusedImage
from downstream.service.models import Models, NoSuchModel, decision_file
from downstream.service.monitoring import LOG
from pretrain.command import UserError
from pretrain.data.channels import Channels
from pretrain.data.decode import Decoded
from pretrain.data.size import Size
from pretrain.encoder import Encoder, fingerprint
from pretrain.remembered_maps import Remembering

# What a method needs to see an image as a whole: neither coreset nor Gaussians, so that all products fit into memory.
OF_WHOLE_IMAGES = ("channel_mean_", "channel_spread_", "pooled_", "roi_", "size_px_")
FEWEST_GOOD = 4
# Of five real products, known by 8, 16, 64 or all of their good images (224 px), good test images lay at 1.33 at most
# and 1 to 3 of 100 defective ones beyond 1.5; images of others at 1.34 to 1.88 at least from solar cells, which vary
# most, and at 3.6 from the rest. By 2, four of five capsules were called solar cells where no model was of capsules.
# Distances in units of the good images' covariance told no better.
FARTHEST = 1.5
UNROUTED = "no image is routed to a model"


class Product(NamedTuple):
    """A model by which images are told apart: `unit` is the largest distance of one of its good images to the nearest
    other one."""

    name: str
    size_px: Size
    channels: Channels
    method: PatchMethod
    unit: float


class Router:
    """Finds products among the models of a service. May be used from any thread."""

    def __init__(self, models: Models) -> None:
        self._models, self._lock = models, threading.Lock()
        # With when each was written; none of a model that cannot tell, or cannot be loaded, until it is another.
        self._known: dict[str, tuple[int, Product | None]] = {}
        # As products see by them, by fingerprint: one lasts as long as a product of its.
        self._encoders: WeakValueDictionary[str, Encoder | Remembering] = WeakValueDictionary()

    def products(self) -> list[Product]:
        """Those that can be found, as their models are now. Raises UserError where there is none."""
        with self._lock:
            there = {}
            for name in self._models.names():
                try:
                    written_ns = decision_file(self._models.path_of(name)).stat().st_mtime_ns
                    known = self._known.get(name)
                    is_known = known is not None and known[0] == written_ns
                    there[name] = known if is_known else (written_ns, self._product(name))
                except (NoSuchModel, OSError) as error:  # being written just now, or taken away
                    LOG.warning(UNROUTED, extra={"metadata": {"model": name, "why": str(error)}})
            self._known = there
        found = [product for _, product in there.values() if product is not None]
        if not found:
            raise UserError(f"no model here can find its product, which takes {FEWEST_GOOD} good images: name one.")
        return found

    def _product(self, name: str) -> Product | None:
        try:
            inspector = self._models.load(name).inspector
        except UserError as error:
            LOG.warning(UNROUTED, extra={"metadata": {"model": name, "why": str(error)}})
            return None
        method = inspector.method
        pooled = getattr(method, "pooled_", ())
        if not isinstance(method, PatchMethod) or len(pooled) < FEWEST_GOOD:
            return None
        light = copy.copy(method)
        for attribute in [one for one in vars(light) if one.endswith("_") and one not in OF_WHOLE_IMAGES]:
            delattr(light, attribute)
        self._share_encoder(light)
        for attribute in ("_index", "_encoder", "encoder"):
            vars(light).pop(attribute, None)
        return Product(name, inspector.size_px, inspector.channels, light, unit_of(pooled))

    def _share_encoder(self, light: PatchMethod) -> None:
        """Have products of equal weights see by one encoder, which is the most that is left of each."""
        encoder = light._opened_encoder()
        light._patches = light._make_patches(encoder).to(light.device)
        light._patches.encoder = self._encoders.setdefault(fingerprint(encoder), light._patches.encoder)


def unit_of(pooled: Tensor) -> float:
    """Of the vectors (n, d) of good images: the largest distance of one to the nearest other one."""
    return max(float(nearest_other(pooled, range(len(pooled))).max()), 1e-12)


def nearest_product(products: Sequence[Product], images: Mapping[tuple[Size, Channels], Decoded]) -> str:
    """The name of the one that an image shows, decoded as each sees it, as far as it can be. Raises RefusedImage where
    it is none."""
    return chosen(distances_from(products, images))


@torch.inference_mode()
def distances_from(products: Sequence[Product], images: Mapping[tuple[Size, Channels], Decoded]) -> dict[str, float]:
    """How far an image lies from each that it can be seen by, in that one's units."""
    distances = {}
    for product in products:
        if (image := images.get((product.size_px, product.channels))) is None:
            continue
        pixels = torch.from_numpy(image.pixels.copy()).permute(2, 0, 1)[None]
        distances[product.name] = float(product.method.apart(pixels)[0]) / product.unit
    return distances


def chosen(distances: Mapping[str, float]) -> str:
    """The nearest product. Raises RefusedImage where none is near enough."""
    if not distances:
        raise RefusedImage(422, "it has fewer bits a channel than the images of all products here; name its model")
    name = min(distances, key=distances.__getitem__)
    if not distances[name] <= FARTHEST:
        others = "the product" if len(distances) == 1 else f"any of the {len(distances)} products"
        raise RefusedImage(
            422,
            f"it does not look like {others} here: the nearest is {name}, and it lies {distances[name]:.1f} times as "
            f"far from its good images as they do from each other, where {FARTHEST:g} are taken; name its model",
        )
    return name
