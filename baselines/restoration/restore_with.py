"""Restoring image files: every one under its own name, in its own format."""

from dataclasses import replace
from typing import TYPE_CHECKING

from baselines.restoration.image_files import read_exact, write_exact
from baselines.restoration.run import Load, opened
from pretrain.command import UserError
from pretrain.data.decode import Unreadable
from pretrain.data.images import scan_plain
from pretrain.progress import Progress

if TYPE_CHECKING:
    from baselines.sadnet import Restore


def restore_with(config: "Restore", load_restorer: Load) -> int:
    """Restore every image; 3 where some could not be read."""
    restorer, metadata = opened(config.model, load_restorer, config.memory_mb)
    places = []
    for place in config.images:
        if place.is_file():
            places.append((place, config.out / place.name))
        else:
            records = scan_plain(place).records
            places += [(record.path, config.out / record.path.relative_to(place)) for record in records]
    if not places:
        raise UserError("no images to restore: name images or folders of them.")
    for path, target in places:
        if target.resolve() == path.resolve():
            raise UserError(f"--out {config.out} would write over {path}: choose another folder.")
    if len({target for _, target in places}) < len(places):
        raise UserError("two images to restore have the same name: restore them into folders of their own.")
    unreadable = 0
    with Progress("restoring", len(places)) as progress:
        for path, target in places:
            try:
                image = read_exact(path)
                restored = restorer.restore(image.image[None])[0]
                write_exact(replace(image, image=restored), target)
            except Unreadable as reason:
                unreadable += 1
                progress.print(f"{path}: {reason}")
            progress.advance()
    print(f"{len(places) - unreadable} images restored to {config.out}; learned from {metadata['degradation']}")
    return 3 if unreadable else 0
