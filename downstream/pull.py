"""Download an encoder or a fitted model that heldout pushed to the Hugging Face Hub, checked before it gets its name.

    python downstream/pull.py OWNER/NAME --out models/bolt
    python downstream/pull.py OWNER/NAME --revision COMMIT --sha256 NUMBER     # that and nothing else

Only safetensors, JSON and the card are downloaded, each with the SHA-256 that it was pushed with. A repository that
holds anything that could run code is refused.
"""

if __name__ == "__main__":
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from downstream.hub.config import Pull
    from pretrain.command import start

    start("downstream.pull:main", Pull)

import re
import shutil
from pathlib import Path

from baselines.contract.model_folder import FILE, parts_of
from downstream.hub.config import Pull
from downstream.hub.repository import CARD, ENCODER, checked_name, download, snapshot
from downstream.learning.versions import FOLDER
from downstream.methods.catalogue import imported
from pretrain.command import UserError
from pretrain.files import whole_folder


def main(config: Pull) -> None:
    """Look at what is there, download, check, and say how to go on."""
    if len(config.what) != 1:
        raise UserError("name one repository: pull.py OWNER/NAME.")
    name = checked_name(config.what[0])
    if config.sha256 is not None and not re.fullmatch("[0-9a-fA-F]{64}", config.sha256):
        raise UserError(f"--sha256 {config.sha256} is no SHA-256: give the 64 digits that push printed.")
    out = config.out or Path("models", name.partition("/")[2])
    if out.exists() and not config.overwrite:
        raise UserError(f"{out} is there already: name another folder with --out, or replace it with --overwrite.")
    if any((out / FOLDER).glob("[0-9]*")):
        raise UserError(f"{out} has versions, which are not of what is pulled: name another folder with --out.")
    found = snapshot(name, config.revision)
    print(f"from:   {name}, which holds {sum(found.sizes.values()) / 1e6:.1f} MB", flush=True)
    with whole_folder(out, replaced={*parts_of(out), FILE, ENCODER, CARD}) as folder:
        digest = download(found, folder, config.sha256)
        shutil.rmtree(folder / ".cache", ignore_errors=True)  # huggingface_hub's notes on what it downloaded
        history = opened(name, folder)
        size = sum(file.stat().st_size for file in folder.iterdir())
    is_model = (out / FILE).is_file()
    print(f"pulled: {out}, {'a model' if is_model else 'an encoder'} of {size / 1e6:.1f} MB, {history}")
    print(f"commit: {found.commit}\nsha256: {digest}")
    if (out / CARD).is_file():
        print(f"card:   {out / CARD} says what it has seen, and under which license it is")
    if is_model:
        print(f"next:   python downstream/detect.py run IMAGE_OR_FOLDER --model {out}")
    else:
        print(f"next:   python downstream/detect.py fit --data FOLDER_OF_GOOD_IMAGES --encoder {out / ENCODER}")


def opened(name: str, folder: Path) -> str:
    """What a folder holds, in some words, after all of it was opened. Raises UserError where it is of no use."""
    try:
        if (folder / FILE).is_file():
            model = imported("downstream.inspection.inspector.Inspector").load(folder)
            return f"{type(model.method).__name__} for {model.category}"
        return imported("pretrain.encoder.load_encoder")(folder / ENCODER).history
    except UserError as error:
        reason = str(error).replace(str(folder), name)
        raise UserError(f"{name} is whole, but of no use here: {reason}") from None
