"""A repository on the Hugging Face Hub: what may lie there, how it gets there and back, and what is said if it cannot.

The package huggingface_hub does the work. It asks the Hub, or HF_ENDPOINT in its place, with the user's own HF_TOKEN or
login where there is one. Nothing is counted or reported to anybody.
"""

import hashlib
import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

from baselines.contract.model_folder import FILE
from pretrain.command import UserError

if TYPE_CHECKING:
    from huggingface_hub import HfApi

# As sha256sum writes and checks it. The SHA-256 of this file stands for all that it names.
CHECKSUMS, CARD, ENCODER = "SHA256SUMS", "README.md", "encoder.safetensors"
# Tensors, how a model decides, and the card; flat, so that no name leads out of a folder.
PUSHED = re.compile(rf"[A-Za-z0-9][\w.-]{{0,199}}\.safetensors|{re.escape(FILE)}|{re.escape(CARD)}", re.ASCII)
# What may lie beside them: it runs no code, and is left where it is.
HARMLESS_SUFFIXES = {".safetensors", ".json", ".md", ".txt"}
HARMLESS_NAMES = {CHECKSUMS, ".gitattributes", "LICENSE"}
NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
MAX_TEXT_BYTES, MAX_TENSOR_BYTES = 10**6, 2**34
TIMEOUT_S = 30


class Snapshot(NamedTuple):
    """What a repository holds at one commit: sizes in bytes by name."""

    name: str
    commit: str
    sizes: dict[str, int]


def checked_name(name: str) -> str:
    """The name of a repository. Raises UserError for what cannot be one."""
    if not NAME.fullmatch(name):
        raise UserError(f"{name} names no repository: give OWNER/NAME, as it stands in the address of its page.")
    return name


def checksums(files: Mapping[str, Path | bytes]) -> str:
    """A line for each file, in the order of their names."""
    return "".join(f"{sha256(files[name])}  {name}\n" for name in sorted(files))


def sha256(data: bytes | str | Path) -> str:
    """Of text, bytes or a file, which is read in blocks."""
    if isinstance(data, Path):
        with data.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    return hashlib.sha256(data.encode() if isinstance(data, str) else data).hexdigest()


def upload(name: str, files: Mapping[str, Path | bytes], message: str, public: bool = False) -> str:
    """All files in one commit, to a repository that is made, private unless `public`, where there is none. Returns the
    commit's address."""
    api = _client()
    with _in_a_sentence(name, "pushed to", api):
        from huggingface_hub import CommitOperationAdd

        api.create_repo(name, private=not public, exist_ok=True)
        added = [CommitOperationAdd(path_in_repo=file, path_or_fileobj=given) for file, given in files.items()]
        return str(api.create_commit(name, added, commit_message=message).commit_url)


def snapshot(name: str, revision: str) -> Snapshot:
    """What a repository holds. Raises UserError for one that holds anything but safetensors, JSON and text, which is
    all that heldout pushes: a pickle runs code when it is opened."""
    api = _client()
    with _in_a_sentence(name, "pulled from", api, revision):
        info = api.model_info(name, revision=revision, files_metadata=True, timeout=TIMEOUT_S)
    sizes = {file.rfilename: file.size or 0 for file in info.siblings or ()}
    for file in map(PurePosixPath, sizes):
        if file.suffix not in HARMLESS_SUFFIXES and file.name not in HARMLESS_NAMES:
            raise UserError(
                f"{name} holds {file}, which is no safetensors, JSON or text and could run code when it is opened: "
                "nothing is pulled; name a commit without it by --revision."
            )
    if CHECKSUMS not in sizes:
        raise UserError(f"{name} was not pushed by heldout: it has no {CHECKSUMS}; name another repository.")
    return Snapshot(name, info.sha, sizes)


def download(of: Snapshot, folder: Path, expected: str | None = None) -> str:
    """The files that the checksums of a snapshot name into an empty folder. Returns the SHA-256 that
    stands for them, which has to be `expected` if that is given. Raises UserError where a file is not what it was."""
    text = _fetched(of, CHECKSUMS, folder).read_text(errors="replace")
    if expected is not None and sha256(text) != expected.lower():
        raise UserError(
            f"{of.name} at {of.commit[:12]} is not what --sha256 asks for but {sha256(text)}: it was changed; ask who "
            "gave you the number, or name the commit by --revision."
        )
    for line in text.splitlines():
        digest, _, file = line.partition("  ")
        if not PUSHED.fullmatch(file) or file not in of.sizes:
            raise UserError(f"{CHECKSUMS} of {of.name} names {file[:80]!r}, which is not there: push it anew.")
        if sha256(_fetched(of, file, folder)) != digest:
            raise UserError(
                f"{file} of {of.name} was changed since it was pushed: its SHA-256 is not what {CHECKSUMS} says; "
                "name an earlier commit by --revision, or have it pushed anew."
            )
    (folder / CHECKSUMS).unlink()
    return sha256(text)


def _fetched(of: Snapshot, file: str, folder: Path) -> Path:
    if of.sizes[file] > (MAX_TEXT_BYTES if file in (CHECKSUMS, CARD, FILE) else MAX_TENSOR_BYTES):
        raise UserError(
            f"{file} of {of.name} has {of.sizes[file]} bytes, too many for what it should be: push it anew."
        )
    api = _client()
    with _in_a_sentence(of.name, "pulled from", api, of.commit):
        path = Path(api.hf_hub_download(of.name, file, revision=of.commit, local_dir=folder))
    if path.stat().st_size != of.sizes[file]:
        raise UserError(
            f"{file} of {of.name} has {path.stat().st_size} bytes and not the {of.sizes[file]} that {api.endpoint} "
            "said: it was changed on its way; try again, or from another network."
        )
    return path


def _client() -> "HfApi":
    from huggingface_hub import HfApi, constants, utils  # 0.3 s that --help does without

    # Else the User-Agent says more than is needed: torch's version, and which program runs this one. Not by a variable
    # of the environment, which is read when the package is imported, and timm has done that before.
    constants.HF_HUB_DISABLE_TELEMETRY = True
    if not sys.stderr.isatty():
        utils.disable_progress_bars()
    return HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None)


@contextmanager
def _in_a_sentence(name: str, did: str, api: "HfApi", revision: str = "") -> Iterator[None]:
    """Whatever goes wrong between here and there, as a UserError."""
    from huggingface_hub import errors

    try:
        yield
    except (OSError, ValueError, KeyError, *errors.HfHubHTTPError.__bases__) as error:
        if isinstance(error, OSError) and error.errno:  # of this machine's disk
            raise
        raise UserError(_sentence(error, f"{did} {name}", name, api.endpoint, revision)) from None


def _sentence(error: Exception, done: str, name: str, where: str, revision: str) -> str:
    from huggingface_hub import errors

    response = getattr(error, "response", None)
    status = 0 if response is None else response.status_code
    if isinstance(error, errors.GatedRepoError):
        return f"{name} asks for consent first: open {where}/{name}, and log in by HF_TOKEN."
    if isinstance(error, errors.RepositoryNotFoundError):
        return (
            f"there is no repository {name} at {where} that you may see: look at the name, or log in (HF_TOKEN, or "
            "hf auth login)."
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{name} has no revision {revision}: give a commit, branch or tag of it."
    if isinstance(error, errors.OfflineModeIsEnabled):
        return f"nothing was {done}, since HF_HUB_OFFLINE is set: unset it."
    if status in (401, 403):
        return f"nothing was {done}, since {where} forbids it ({status}): log in as one who may (HF_TOKEN)."
    if status:
        return f"nothing was {done}, since {where} answered {status} ({_reason(error)}): try later."
    if isinstance(error, errors.HFValidationError):
        return f"{name} is no name that the Hub allows ({_reason(error)}): give OWNER/NAME."
    if isinstance(error, ValueError | KeyError):
        return f"nothing was {done}, since {where} answers as no Hub does ({_reason(error)}): look at HF_ENDPOINT."
    return (
        f"nothing was {done}, since {where} could not be reached ({_reason(error)}): look at the network, HTTPS_PROXY "
        "and HF_ENDPOINT."
    )


def _reason(error: BaseException) -> str:
    """The innermost of what a network library says, on one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(str(error).split())[:200] or type(error).__name__
