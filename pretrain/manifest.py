"""List the images of a folder or a URL once, for inspection and extraction on many machines.

    python pretrain/manifest.py FOLDER --out images.parquet
    python pretrain/manifest.py s3://BUCKET/FOLDER --out images.parquet
    python pretrain/manifest.py --help

The same command again brings it up to date. Memory does not grow with the number of images.
"""

if __name__ == "__main__":
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from pretrain.command import start
    from pretrain.config import Manifest

    start("pretrain.manifest:main", Manifest)

from pretrain.command import UserError
from pretrain.config import Manifest
from pretrain.data.manifest import write_manifest
from pretrain.data.places import Place


def main(config: Manifest) -> None:
    """List, and say what there is."""
    if len(config.url) != 1:
        raise UserError("name one folder or URL of images; an archive of them is one, too.")
    place = Place.of(config.url[0])
    print(f"{config.out}: {write_manifest(place, config.out).in_words()}")
    print(f"next:  python downstream/detect.py run --data {config.out} --model MODEL --address local")
