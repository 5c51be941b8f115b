"""What an inspection takes of the machine's memory: said before it begins, and kept within what it may take.

An image is looked at in tiles, so that what an encoder makes of it takes as much as a tile, however large the image.
What is left grows with its pixels: the image as bytes, its map, and the labels of its regions. Gaussians, coresets and
tiles have a size of their own.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

from baselines.contract.method import LEARNING_BATCH, Method, at_once
from downstream.inspection.asked_method import Say
from downstream.methods.bands import MAX_PATCHES_EACH
from downstream.methods.ensemble import MAX_KEPT_BYTES, Ensemble
from downstream.methods.normals import MAX_FOR_CHANNELS, MAX_LEFT_OUT
from downstream.methods.padim import PaDiM
from downstream.methods.patch_method import PatchMethod
from embeddings.patches import MARGIN_PX, MIN_TILE_PX, TILE_PX, TILE_STEP_PX, pixels_at_once
from pretrain.command import UserError
from pretrain.data.size import Size, named, scaled, sides
from pretrain.free_memory import free_memory_bytes, own_memory_bytes

Member = tuple[PatchMethod, tuple[int, int]]
GIB = 2**30


class Task(NamedTuple):
    """Images (h, w) that a method is fitted to, so many of them, or with none inspects; of parts of so many lights.
    Whether they are aligned, and judged by areas or zones."""

    shape: tuple[int, int]
    normals: int = 0
    lights: int = 1
    aligns: bool = False
    by_rule: bool = False


# Whatever the images are: patches that a coreset is chosen from, their distances, a band of patches with its copies.
ALWAYS = 2**28
# Bytes of a pixel: as a byte of each color; of a map, and of what finds regions in it, or looks for areas and zones; of
# the levels in a row of tiles, and of the patches of an image that is not cut; of copies that turn and move an image,
# and its map; and of maps while those of several members are fused.
COLORS, MAP, REGIONS, RULES, LEVELS, PATCHES, TURNED, MOVED_BACK, FUSED = 3, 4, 7, 25, 12, 20, 15, 12, 16
# Of a channel as floats, made smaller along one side and along both, of which there are three and a copy.
FLOAT, SMALLER, SMALLEST = 4, 4, 24
# More bytes a pixel than any encoder takes (an EfficientNet-Lite0 324, VGG-16 804): one is asked what it does, which
# takes time, only where so much would be too much.
MOST_OF_AN_ENCODER = 2048
TILES = (None, *range(TILE_PX - 2 * TILE_STEP_PX, MIN_TILE_PX - 1, -2 * TILE_STEP_PX))


def keep_within(
    method: Method,
    size_px: Size,
    memory_gb: float | None,
    say: Say,
    name: str = "this method",
    normals: int = 0,
    aligns: bool = False,
    by_rule: bool = False,
) -> None:
    """Have a method look at images of a size in as large tiles as `memory_gb` allows, or what is free with none; it is
    about to be fitted to so many normals, or was fitted; `by_rule` they are judged by areas or zones. Raises UserError
    where not even the smallest will do; of what is free, it is said."""
    if not isinstance(method, PatchMethod | Ensemble):
        if memory_gb is not None:
            raise UserError(f"--memory-gb bounds what padim, patchcore, fused and residual take, and not {name}.")
        return
    if memory_gb is not None and not memory_gb > 0:
        raise UserError(f"--memory-gb {memory_gb:g} cannot be: give the GiB that it may take, such as 4.")
    allowed = own_memory_bytes() + free_memory_bytes() if memory_gb is None else memory_gb * GIB
    task = Task(sides(size_px), normals, getattr(method, "lights", 1), aligns, by_rule)
    members = members_of(method, task.shape)
    for tile_px in TILES:
        needed = bytes_for(members, task, tile_px, MOST_OF_AN_ENCODER)
        if needed > allowed:
            needed = bytes_for(members, task, tile_px)
        if needed <= allowed:
            break
    if tile_px != method.tile_px:
        method.keep_within(tile_px)
    if needed > allowed:
        takes = f"{name} takes about {needed / GIB:.1f} GiB for images of {named(size_px)} px"
        if memory_gb is not None:
            raise UserError(
                f"{takes}, and --memory-gb allows {memory_gb:g}: allow more, or see them at a smaller --size-px."
            )
        say(f"{takes}, and {allowed / GIB:.1f} are free: a smaller --size-px takes less")
    elif most_pixels := pixels_at_once(tile_px):
        why = f"{allowed / GIB:.1f} GiB are {'free' if memory_gb is None else 'allowed'}"
        say(f"{why}: {most_pixels / 1e6:.1f} megapixels are looked at at once, which takes longer")


def bytes_for(members: Sequence[Member], task: Task, tile_px: int | None, per_pixel: int | None = None) -> int:
    """About what this process takes at most for a task of such members, in tiles of that side. An encoder takes so much
    `per_pixel`, or with none what it is measured to."""
    pixels = math.prod(task.shape)
    steps = [bytes_to_see(member, of_member, tile_px, per_pixel) for member, of_member in members]
    learned = sum(bytes_to_learn(*each, task.normals) for each in members) if task.normals else 0
    steps.append((MAP + (RULES if task.by_rule else REGIONS) + (MOVED_BACK if task.aligns else 0)) * pixels)
    steps.append((TURNED if task.aligns else 0) * pixels)
    if task.normals:  # written, half of each matrix is there again, and once more as the bytes of a file
        steps.append(
            sum(member.gaussian_bytes(of_member) for member, of_member in members if isinstance(member, PaDiM))
        )
    if len(members) > 1:  # the maps of all members lie there at once, until they are fused
        shares = [of_member[0] / task.shape[0] for _, of_member in members if of_member != task.shape]
        reduced = max((FLOAT + SMALLER * share + SMALLEST * share**2 for share in shares), default=0)
        maps = MAP * sum(math.prod(of_member) for _, of_member in members)
        steps = [max(steps) + round(reduced * pixels), FUSED * pixels + maps]
        learned += min(MAX_KEPT_BYTES, maps * min(task.normals, MAX_LEFT_OUT))
    return own_memory_bytes() + ALWAYS + learned + COLORS * task.lights * pixels + max(steps)


def bytes_to_learn(method: PatchMethod, shape: Sequence[int], normals: int) -> int:
    """What a method keeps of normals while it is fitted to them."""
    patches = method._opened_patches()
    of_each = min(MAX_PATCHES_EACH, math.prod(patches.grid_of(shape))) * patches.width
    sampled = 4 * min(normals, MAX_FOR_CHANNELS) * of_each
    if method.foreground:  # the mean patch at every position, and as it was before an image was added
        sampled += 8 * math.prod(patches.grid_of(shape)) * patches.dimensions
    return sampled + (method.gaussian_bytes(shape) if isinstance(method, PaDiM) else 0)


def members_of(method: PatchMethod | Ensemble, shape: tuple[int, int]) -> list[Member]:
    """The patch methods that look, and the size (h, w) at which each does."""
    if not isinstance(method, Ensemble):
        return [(method, shape)]
    member = method.any_member()
    return [(member, scaled(shape, scale)) for _ in range(method.lights) for scale in method.scales]


def bytes_to_see(method: PatchMethod, shape: Sequence[int], tile_px: int | None, per_pixel: int | None) -> int:
    """What an encoder and what it makes take while it looks, on a GPU none of main memory."""
    if method.device.type != "cpu":
        return 0
    patches, (height, width) = method._opened_patches(), shape
    per_pixel = per_pixel or patches.bytes_per_pixel
    side = tile_px or TILE_PX
    if patches.cuts(shape, side):
        seen = min(side + 2 * MARGIN_PX, height) * min(side + 2 * MARGIN_PX, width)
        return per_pixel * seen + LEVELS * side * width
    pixels = math.prod(shape) * at_once(max(LEARNING_BATCH, method.batch_size), shape, pixels_at_once(tile_px))
    return (per_pixel + PATCHES) * pixels
