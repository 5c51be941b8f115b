"""Upload an encoder or a fitted model to the Hugging Face Hub, with a card that says what it has seen.

    python downstream/push.py runs/simclr/encoder.safetensors OWNER/NAME --license mit
    python downstream/push.py models/bolt OWNER/NAME --dry-run            # the card, and nothing is sent
    python downstream/pull.py OWNER/NAME --out models/bolt                # anywhere else

A repository that is made is private unless `--public` says otherwise. What is sent is safetensors and JSON alone.
"""

if __name__ == "__main__":
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from downstream.hub.config import Push
    from pretrain.command import start

    start("downstream.push:main", Push)

from dataclasses import asdict
from pathlib import Path

from baselines.contract.model_folder import FILE, parts_of
from downstream.hub.card import card, local_paths
from downstream.hub.config import Push
from downstream.hub.repository import CARD, CHECKSUMS, ENCODER, checked_name, checksums, sha256, upload
from downstream.inspection.inspector import Inspector
from pretrain.command import UserError
from pretrain.encoder import Encoder, load_encoder


def main(config: Push) -> None:
    """Check what is to be sent, describe it, send it, and say how to get it back."""
    if len(config.what) != 2:
        raise UserError("name an encoder's file or a model's folder, and the repository: models/bolt OWNER/NAME.")
    source, name = Path(config.what[0]), checked_name(config.what[1])
    files, contents = opened(source)
    encoder = contents if isinstance(contents, Encoder) else load_encoder(files[ENCODER]) if ENCODER in files else None
    text = card(name, contents, encoder, config)
    sent = {**files, CARD: text.encode()}
    sums = checksums(sent)
    if paths := sorted({*local_paths([*_header(contents), *(_header(encoder) if encoder else ())])}):
        print(f"note:   the files name paths of this machine, which readers will see: {', '.join(paths)}")
    if config.dry_run:
        print(text)
    else:
        sent[CHECKSUMS] = sums.encode()
        print(f"pushed: {upload(name, sent, f'{source.name}, by heldout', config.public)}")
    for file, path in files.items():
        print(f"file:   {file} ({path.stat().st_size / 1e6:.1f} MB)")
    print(f"sha256: {sha256(sums)}")
    if not config.license:
        print("note:   the card states no license, so readers do not know what they may do: give one with --license")
    print(f"next:   heldout pull {name} --sha256 {sha256(sums)}")


def opened(source: Path) -> tuple[dict[str, Path], Encoder | Inspector]:
    """The files of an encoder or of a model by the names that they get, and what they hold. Raises UserError for
    anything else, and for what is damaged."""
    if source.is_dir() and (source / FILE).is_file():
        model = Inspector.load(source, "cpu")
        files = {part: source / Path(part).name for part in sorted(parts_of(source))}
        if not files:
            raise UserError(f"{source} was fitted before 0.1 and does not say what belongs to it: fit the model again.")
        return {**files, FILE: source / FILE}, model
    file = source / ENCODER if source.is_dir() else source
    if source.is_dir() and not file.is_file():
        raise UserError(f"{source} holds neither a model ({FILE}) nor {ENCODER}: name what fit or simclr.py wrote.")
    if file.exists() and file.suffix != ".safetensors":
        raise UserError(f"{file} is no safetensors, and nothing else is pushed: name an encoder or a model's folder.")
    return {ENCODER: file}, load_encoder(file)


def _header(contents: Encoder | Inspector) -> list[object]:
    if isinstance(contents, Inspector):
        return [contents.metadata]
    return [asdict(part) for part in (contents.origin, contents.started_from) if part]
