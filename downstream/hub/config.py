"""The options of push.py and pull.py."""

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Push:
    """Upload an encoder or a model to the Hugging Face Hub, with a card that says what it has seen.

    Attributes:
        what: The encoder's file or the model's folder, and the repository as OWNER/NAME.
        license: License of the weights by the Hub's name for it, such as mit or cc-by-nc-sa-4.0. The card says that
            none is stated otherwise.
        data_license: License of the images that it learned from, in your words; the same holds.
        public: Let everybody read a repository that is made now. One that is there stays as it is.
        dry_run: Print the card and the files, and send nothing.
    """

    what: tuple[str, ...] = field(default=(), metadata={"positional": True})
    license: str | None = None
    data_license: str | None = None
    public: bool = False
    dry_run: bool = False


@dataclass(frozen=True)
class Pull:
    """Download an encoder or a model that heldout pushed to the Hugging Face Hub, and check it.

    Attributes:
        what: The repository, OWNER/NAME.
        out: Folder to write to. Default is models/NAME.
        revision: Commit, branch or tag.
        sha256: What push printed; anything else is refused.
        overwrite: Replace what is in the folder.
    """

    what: tuple[str, ...] = field(default=(), metadata={"positional": True})
    out: Path | None = None
    revision: str = "main"
    sha256: str | None = None
    overwrite: bool = False
