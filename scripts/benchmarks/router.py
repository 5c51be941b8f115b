"""Does the router find an image's product among several, and refuse one of none of them?

    python scripts/benchmarks/router.py --data FOLDER --record RESULTS.md

As `serve.py --route`: products are known by their good training images, here all of them. Each test image, good or
defective, is asked for twice. Among all products its own one is right, another one wrong, and none a refusal; among all
but its own one to be refused is right. How far images lie is in the products' own units, of which FARTHEST are taken.

Targets: of good images .99 are routed right; without their own product .99 of all images are refused.
"""

if __name__ == "__main__":
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[2])
    from pretrain.command import start
    from scripts.benchmarks.config import Router

    start("scripts.benchmarks.router:main", Router)

from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import mean
from typing import NamedTuple

from baselines.contract.method import Images
from downstream.inspection.asked_method import make_method
from downstream.inspection.config import Fit
from downstream.methods.patch_method import PatchMethod
from downstream.service.decoding import RefusedImage
from downstream.service.routing import FARTHEST, FEWEST_GOOD, Product, chosen, distances_from, unit_of
from pretrain.command import UserError
from pretrain.data.dataset import ImageSet, load
from pretrain.data.decode import Decoded
from pretrain.progress import Progress
from pretrain.remembered_maps import remembered_maps
from scripts.benchmarks.config import Router
from scripts.benchmarks.rounds import finish

REMEMBERED_BYTES = 2**28  # all products see one image before they see the next
REFUSED = "refused"


class Asked(NamedTuple):
    """A test image: its distance to each product, which one was found among all, and which one without its own."""

    category: str
    is_defective: bool
    distances: Mapping[str, float]
    among_all: str
    without_own: str


def main(config: Router) -> int:
    images = load(config.data, config.size_px, config.categories, layout=config.layout)
    if len(images.categories) < 2:
        raise UserError(f"{config.data} has one category: a router tells two or more apart.")
    records = images.records
    tests = [i for i, record in enumerate(records) if record.split == "test"][:: 10 if config.quick else 1]
    with remembered_maps(REMEMBERED_BYTES), Progress("looking", len(tests) + len(images.categories)) as progress:
        products = []
        for category in images.categories:
            products.append(product_of(images.of(category), config))
            progress.advance()
        asked = []
        for i in tests:
            (pixels,) = images.batch([i])
            seen = {(images.size_px, images.channels): Decoded(pixels, *pixels.shape[:2])}
            asked.append(answer(records[i].category, records[i].is_anomaly, distances_from(products, seen)))
            progress.advance()
    good, bad = (
        [each.among_all == each.category for each in asked if each.is_defective is kind] for kind in (False, True)
    )
    figures = {
        "good_right": mean(good),
        "defective_right": mean(bad) if bad else None,
        "refused_without_own": mean(each.without_own == REFUSED for each in asked),
        "found": {category: counts(asked, category) for category in images.categories},
    }
    lines = [
        f"{config.method} at {config.size_px} px, {len(products)} products known by all their good training images;",
        f"distances in units of each product, of which {FARTHEST:g} are taken",
        *table(asked, images.categories),
    ]
    targets = {"good_right": 0.99, "refused_without_own": 0.99}
    return finish("router", config, lines, figures, at_least=targets, heading="Finding the product")


def product_of(images: ImageSet, config: Router) -> Product:
    """What the router makes of a model of one category; neither the coreset nor Gaussians, for which it does not ask,
    are computed."""
    (category,) = images.categories
    good = images.subset([i for i, r in enumerate(images.records) if r.split == "train" and not r.is_anomaly])
    if len(good) < FEWEST_GOOD:
        raise UserError(f"{category} has {len(good)} good training images: a router needs {FEWEST_GOOD}.")
    method = make_method(Fit(data=config.data, method=config.method), config.data, lambda _: None)
    if not isinstance(method, PatchMethod):
        raise UserError(f"{config.method} sees no image as a whole: give fused, padim or patchcore.")
    for bands in method._views_of_normals(Images(good)):
        for _ in bands:
            pass
    return Product(category, images.size_px, images.channels, method, unit_of(method.pooled_))


def answer(category: str, is_defective: bool, distances: Mapping[str, float]) -> Asked:
    others = {name: distance for name, distance in distances.items() if name != category}
    return Asked(category, is_defective, distances, found(distances), found(others))


def found(distances: Mapping[str, float]) -> str:
    try:
        return chosen(distances)
    except RefusedImage:
        return REFUSED


def counts(asked: Sequence[Asked], category: str) -> dict[str, Counter[str]]:
    """Of a category's images, good and defective: what was found among all, and without their own product."""
    own = [each for each in asked if each.category == category]
    return {
        "good": Counter(each.among_all for each in own if not each.is_defective),
        "defective": Counter(each.among_all for each in own if each.is_defective),
        "without own": Counter(each.without_own for each in own),
    }


def table(asked: Sequence[Asked], categories: Sequence[str]) -> list[str]:
    """A row for each product: right, wrong and refused; and how far its own good and defective images lie at most, and
    from another product at least."""
    lines = [
        f"  {'':14}{'good':>14}{'defective':>14}{'without own':>14}{'farthest own':>16}{'nearest':>9}",
        f"  {'product':14}{'right/wrong/refused':>28}{'refused':>14}{'good/defective':>16}{'other':>9}",
    ]
    for category in categories:
        known, own = counts(asked, category), [each for each in asked if each.category == category]
        row = f"  {category:14}"
        for kind in ("good", "defective"):
            right, refused = known[kind][category], known[kind][REFUSED]
            row += f"{f'{right}/{known[kind].total() - right - refused}/{refused}':>14}"
        alone = known["without own"]
        row += f"{f'{alone[REFUSED]} of {alone.total()}':>14}"
        of_own = [[e.distances[category] for e in own if e.is_defective is kind] for kind in (False, True)]
        row += f"{'/'.join(format(max(distances, default=0), '.2f') for distances in of_own):>16}"
        others = [distance for each in own for name, distance in each.distances.items() if name != category]
        lines.append(f"{row}{min(others, default=0):9.2f}")
    return lines
