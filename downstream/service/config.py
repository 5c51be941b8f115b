"""What the service is told: the options of serve.py, and what becomes of them for its processes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pretrain.command import Names

DEFAULT_MODELS, DEFAULT_KEPT_IMAGES = Path("models"), Path("runs/serve/images")


@dataclass(frozen=True)
class Config:
    """Inspect images over HTTP, with a dashboard in the browser.

    Attributes:
        models: Folder of models, folders that detect.py fit wrote and files that export.py wrote, or one of them.
        model: The model in use until another one is chosen. Default is the one chosen last, else the first by name.
        host: Address to listen at. Beyond this machine a token is required: --token-file or HELDOUT_TOKEN.
        port: Port; 0 takes a free one.
        allowed_hosts: Host names that clients may ask for, beside those of this machine. Default is any if there is a
            token, else none.
        token_file: File with the token that every request has to bring.
        users: File of users, a line each of name, role (operator, engineer or auditor) and SHA-256 of a token; or
            HELDOUT_USERS with such lines. Everybody then needs a token of their own, or the one of --token-file.
        results: Database of the results: a SQLite file, or postgresql://USER@HOST/NAME. Default is HELDOUT_RESULTS if
            that is set, else runs/serve/results.sqlite.
        results_password_file: File with the password for PostgreSQL.
        kept_images: Folder for images that clients ask the service to keep.
        vectors: Also search for similar images in this folder, which embeddings/extract.py wrote.
        encoder: Encoder file for the search. Default is that of --vectors, else that of the model.
        route: Judge an image that names no model by that whose good images it is nearest to; of none of them it is
            refused. Default is the model in use.
        model_memory_mb: Models that requests named last stay in memory, as many as fit into so many MiB; one does in
            any case.
        batch_size: At most so many images in one forward pass.
        max_waiting: At most so many images wait in each worker; clients are told when to come back with more.
        max_images: At most so many images in one request.
        timeout_s: Seconds until an image, or a body that does not arrive, is given up.
        max_image_mb: Size limit of an image file, in MiB.
        max_megapixels: Size limit of an image, in million pixels.
        webhook: Post JSON to this URL when something is wrong with the camera, or scores drift.
        workers: Server processes, each with the model; they share the cores.
        decoders: Processes of each worker that decode images.
        device: cpu, cuda, or auto for a GPU where there is one.
    """

    models: Path = DEFAULT_MODELS
    model: str | None = None
    host: str = "127.0.0.1"
    port: int = 5000
    allowed_hosts: Names = Names()
    token_file: Path | None = None
    users: Path | None = None
    results: str | None = None
    results_password_file: Path | None = None
    kept_images: Path = DEFAULT_KEPT_IMAGES
    vectors: Path | None = None
    encoder: Path | None = None
    route: bool = False
    model_memory_mb: int = 2048
    batch_size: int = 16
    max_waiting: int = 128
    max_images: int = 64
    timeout_s: float = 30.0
    max_image_mb: int = 16
    max_megapixels: float = 50.0
    webhook: str | None = None
    workers: int = 1
    decoders: int = 2
    device: str = "auto"


@dataclass(frozen=True)
class Settings:
    """The options resolved, of plain types: worker processes get them as JSON."""

    models: str
    model: str | None
    results: str
    kept_images: str
    vectors: str | None
    encoder: str | None
    model_memory_bytes: int
    batch_size: int
    max_waiting: int
    max_images: int
    timeout_s: float
    max_image_bytes: int
    max_image_pixels: int
    decoders: int
    device: str
    threads: int
    allowed_hosts: Sequence[str]
    token: str | None = None
    users: Sequence[Sequence[str]] = ()
    webhook: str | None = None
    results_password: str | None = None
    route: bool = False
