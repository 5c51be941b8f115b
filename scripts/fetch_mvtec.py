"""Fetch MVTec AD, the real images, from its publisher into data/mvtec/CATEGORY/...

    python scripts/fetch_mvtec.py --accept-license                            # all 15 categories
    python scripts/fetch_mvtec.py --accept-license --categories bottle,pill   # downloads all, unpacks these two

One archive of 5.26 GB, about 11 GB of disk while it is unpacked. Whatever stops it, the same command resumes:
everything unfinished lies in OUT/.fetch_mvtec, so a category beside that folder is always whole.
"""

if __name__ == "__main__":
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from pretrain.command import start
    from scripts.fetch_mvtec import Config

    start("scripts.fetch_mvtec:main", Config)

import hashlib
import json
import re
import shlex
import shutil
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse, InvalidURL
from pathlib import Path, PurePosixPath
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from pretrain.command import Names, UserError, nearest
from pretrain.files import sole_writer

SHARE = "https://www.mydrive.ch/shares/150996/b52ecdcbf521176e9db9c731f2304b27/download/420938113-1629960298"
URL = f"{SHARE}/mvtec_anomaly_detection.tar.xz"
SHA256 = "cf4313b13603bec67abb49ca959488f7eedce2a9f7795ec54446c649ac98cd3d"
SIZE_BYTES = 5_264_982_680
LICENSE_PAGE = "https://creativecommons.org/licenses/by-nc-sa/4.0/"
ELSEWHERE = "see https://www.mvtec.com/company/research/datasets/mvtec-ad, give --url or put the archive into --out"
# What each category takes, in MiB. PNG hardly shrinks under xz, so packed or unpacked is the same to a few percent.
CATEGORY_MIB = dict(
    bottle=148, cable=481, capsule=385, carpet=705, grid=153, hazelnut=588, leather=500, metal_nut=157, pill=262,
    screw=186, tile=335, toothbrush=104, transistor=384, wood=474, zipper=152,
)  # fmt: skip
TOP_FILES = ("license.txt", "readme.txt")
PIECE_BYTES = 1 << 20
SECONDS_BETWEEN_LINES = 5


@dataclass(frozen=True)
class Config:
    """Fetch MVTec AD (5.26 GB, CC BY-NC-SA 4.0) from its publisher; the same command resumes a stopped one.

    Attributes:
        accept_license: I accept CC BY-NC-SA 4.0, under which MVTec Software GmbH gives the images: no commercial use.
        categories: Only these are unpacked, such as bottle,pill; without this, all 15. The download is whole anyway.
        out: Folder that receives the categories; those already in it are left untouched.
        keep_archive: Keep the archive, so that categories can be added later without another download.
        url: Where the archive is, http or https.
        sha256: SHA-256 that the archive must have.
        timeout_s: Seconds without a single byte after which a connection counts as broken.
        retries: Attempts after a broken connection; counted anew whenever one got further than all before.
        wait_s: Seconds before the first of these attempts, doubled before each further one, at most 60.
    """

    accept_license: bool = False
    categories: Names = Names()
    out: Path = Path("data/mvtec")
    keep_archive: bool = False
    url: str = URL
    sha256: str = SHA256
    timeout_s: float = 30.0
    retries: int = 6
    wait_s: float = 1.0


def main(config: Config) -> int | None:
    check(config)
    asked = config.categories or tuple(CATEGORY_MIB)
    wanted = [category for category in asked if not (config.out / category).exists()]
    if len(wanted) < len(asked):
        print(f"already in {config.out}, left untouched: {', '.join(sorted(set(asked) - set(wanted)))}")
    try:
        if wanted:
            print(f"fetching into {config.out}: {', '.join(wanted)}", flush=True)
            fetch(config, wanted)
    except KeyboardInterrupt:
        print("stopped; the same command resumes.", file=sys.stderr)
        return 130
    except OSError as failure:  # a full disk, a folder that may not be written; broken connections never get here
        raise UserError(f"{failure}; put that right, and the same command resumes.") from failure
    print(f"next: python pretrain/simclr.py --data {shlex.quote(str(config.out))}")


def check(config: Config) -> None:
    if not config.accept_license:
        terms = f"CC BY-NC-SA 4.0 ({LICENSE_PAGE}): no commercial use"
        accepting = "to accept that, and to download 5.26 GB, type the same command with --accept-license"
        raise UserError(f"MVTec Software GmbH gives MVTec AD under {terms}; {accepting}.")
    for category in config.categories:
        if category not in CATEGORY_MIB:
            raise UserError(
                f"--categories {category}: MVTec AD has no such category; {nearest(category, CATEGORY_MIB)}"
            )
    if not re.fullmatch(r"https?://[^\s/]\S*", config.url):
        raise UserError(f"--url {config.url}: give an address that begins with http:// or https://.")
    if not re.fullmatch("[0-9a-fA-F]{64}", config.sha256):
        raise UserError(f"--sha256 {config.sha256}: a SHA-256 is 64 hexadecimal digits.")
    if config.timeout_s <= 0 or config.retries < 0 or config.wait_s < 0:
        raise UserError("--timeout-s must be above 0, --retries and --wait-s must not be below 0.")


def fetch(config: Config, wanted: list[str]) -> None:
    work, kept = config.out / ".fetch_mvtec", config.out / "mvtec_anomaly_detection.tar.xz"
    part, note = work / "archive.part", work / "archive.json"
    with sole_writer(work, "fetches into", "another --out"):  # two that append to one file would spoil it
        # one that is kept, whether by the user or by an earlier run, is read and never changed
        archive = kept if kept.exists() else download(config, part, note, wanted)
        print(f"checking the SHA-256 of {amount(archive.stat().st_size)}", flush=True)
        with archive.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != config.sha256.lower():
            if archive == part:  # out of the way, so that the next run begins afresh
                archive = part.rename(config.out / f"wrong_{found[:8]}.tar.xz")
            wrong = f"wrong bytes: SHA-256 {found} instead of {config.sha256}; nothing was unpacked"
            raise UserError(f"{wrong}; they lie in {archive}: move or delete it, and check --url and --sha256.")
        extract(archive, wanted, config.out)
        print(f"unpacked: {', '.join(wanted)}")
        if config.keep_archive and archive == part:
            print(f"the archive is kept as {part.rename(kept)}")
    shutil.rmtree(work)


def check_disk(folder: Path, archive_bytes: int, missing_bytes: int, wanted: list[str]) -> None:
    """Room for the missing bytes of the archive, and for the wanted part of it unpacked with a tenth for blocks."""
    unpacked_share = sum(CATEGORY_MIB[category] for category in wanted) / sum(CATEGORY_MIB.values())
    needed_bytes, free_bytes = missing_bytes + 1.1 * archive_bytes * unpacked_share, shutil.disk_usage(folder).free
    if free_bytes < needed_bytes:
        raise UserError(
            f"{folder}: {amount(needed_bytes)} needed, {amount(free_bytes)} free; make room or change --out."
        )


def download(config: Config, part: Path, note: Path, wanted: list[str]) -> Path:
    """Bring `part` to its full size, over as many connections as that takes, and return it."""
    furthest_bytes, failures = part.stat().st_size if part.exists() else 0, 0
    while True:
        try:
            return receive(config, part, note, wanted)
        except ConnectionError as failure:
            reached_bytes = part.stat().st_size if part.exists() else 0
            failures = 1 if reached_bytes > furthest_bytes else failures + 1
            furthest_bytes = max(furthest_bytes, reached_bytes)
            if failures > config.retries:
                lost = f"{failure}, and {config.retries} more attempts brought nothing new"
                raise UserError(f"{lost}; the same command resumes from {amount(reached_bytes)}.") from failure
            pause_s = min(config.wait_s * 2 ** (failures - 1), 60)
            print(f"{failure}; attempt {failures} of {config.retries} in {pause_s:g} s", flush=True)
            time.sleep(pause_s)


def receive(config: Config, part: Path, note: Path, wanted: list[str]) -> Path:
    """One connection: append to `part` what is missing, or begin it again where the server's file is another.

    `note` says which file was begun, by its size and by its ETag or date. It is written while there is no `part`.
    """
    size_bytes, begun = json.loads(note.read_text()) if note.exists() and part.exists() else (0, None)
    start_bytes = part.stat().st_size if size_bytes else 0
    if size_bytes and start_bytes == size_bytes:
        return part
    headers = {"User-Agent": "heldout"}
    if start_bytes:
        headers |= {"Range": f"bytes={start_bytes}-"} | ({"If-Range": begun} if begun else {})
    with connect(config, headers) as response:
        same_range = response.headers.get("Content-Range") == f"bytes {start_bytes}-{size_bytes - 1}/{size_bytes}"
        if response.status == 200:
            size_bytes = whole_size_bytes(config, response)
            if start_bytes:
                print("the server sends its file from the beginning: it cannot resume, or the file changed", flush=True)
            part.unlink(missing_ok=True)
            start_bytes = 0
            note.write_text(json.dumps([size_bytes, version(response)]))
        elif not same_range or version(response) not in (None, begun):  # 416, or a 206 with other bytes than asked
            part.unlink(missing_ok=True)
            raise ConnectionError(f"the server no longer has the file begun ({response.status}): from the beginning")
        check_disk(part.parent, size_bytes, size_bytes - start_bytes, wanted)
        with part.open("ab") as file, progress("downloading", size_bytes, start_bytes) as show:
            while (reached_bytes := file.tell()) < size_bytes:
                try:  # read1 keeps what came before a break, read would drop it
                    piece = response.read1(min(PIECE_BYTES, size_bytes - reached_bytes))
                except (OSError, HTTPException) as failure:
                    raise ConnectionError(f"the connection broke off ({failure})") from failure
                if not piece:
                    raise ConnectionError("the connection broke off")
                file.write(piece)
                show(file.tell())
    return part


def connect(config: Config, headers: dict[str, str]) -> HTTPResponse:
    """The server's answer: 200, 206 or 416."""
    try:
        return urlopen(Request(config.url, headers=headers), timeout=config.timeout_s)
    except HTTPError as answer:
        if answer.code == 416:
            return answer
        if answer.code in (408, 429) or answer.code >= 500:
            raise ConnectionError(f"the server answers {answer.code} {answer.reason}") from answer
        raise UserError(f"{config.url} answers {answer.code} {answer.reason}; {ELSEWHERE}.") from answer
    except (ValueError, InvalidURL) as failure:
        raise UserError(f"--url {config.url} is no address: {failure}.") from failure
    except (OSError, HTTPException) as failure:
        raise ConnectionError(f"no connection to {config.url} ({getattr(failure, 'reason', failure)})") from failure


def version(response: HTTPResponse) -> str | None:
    """What tells this file from a later one at the same address. If-Range does not accept a weak ETag."""
    etag = response.headers.get("ETag")
    return etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified")


def whole_size_bytes(config: Config, response: HTTPResponse) -> int:
    published_bytes = SIZE_BYTES if config.sha256.lower() == SHA256 else 0
    size_bytes = int(response.headers.get("Content-Length") or published_bytes)
    if not size_bytes or published_bytes not in (0, size_bytes):
        expected = published_bytes or "a stated number of"
        raise UserError(f"{config.url} offers {size_bytes} instead of {expected} bytes, none was fetched; {ELSEWHERE}.")
    return size_bytes


def extract(archive: Path, wanted: list[str], out: Path) -> None:
    """Unpack beside `out`'s categories, and move them to their places once the whole archive was read and found good.

    One hostile member refuses the whole archive, even in a category that nobody asked for.
    """
    staged, size_bytes, unpacked_bytes = out / ".fetch_mvtec" / "unpacked", archive.stat().st_size, 0
    shutil.rmtree(staged, ignore_errors=True)  # a killed run's
    check_disk(out, size_bytes, 0, wanted)
    try:
        with (
            archive.open("rb") as file,
            tarfile.open(fileobj=file, mode="r|xz", bufsize=PIECE_BYTES) as members,
            progress("unpacking", size_bytes) as show,
        ):
            for member in members:
                path = safe_path(member)
                if (unpacked_bytes := unpacked_bytes + member.size) > 4 * size_bytes + (1 << 20):
                    raise UserError("hostile archive: over four times its size when unpacked; nothing was unpacked.")
                if path.parts and (path.parts[0] in wanted or str(path) in TOP_FILES):
                    members.extract(member, staged, filter="data")  # gives the owner write permission too
                show(file.tell())
        if lacking := [category for category in wanted if not (staged / category / "train" / "good").is_dir()]:
            raise UserError(f"the archive has no images of {', '.join(lacking)}; check --url and --sha256.")
        for name in (*TOP_FILES, *wanted):
            if (staged / name).exists() and not (out / name).exists():
                (staged / name).rename(out / name)
    except (tarfile.TarError, EOFError) as failure:
        raise UserError(
            f"{archive} cannot be unpacked ({failure}): nothing was; check --url and --sha256."
        ) from failure
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def safe_path(member: tarfile.TarInfo) -> PurePosixPath:
    """A member's path without its `./`, refused unless it is a plain file or folder that stays inside."""
    path = PurePosixPath(member.name)
    inside = not path.is_absolute() and ".." not in path.parts and "\\" not in member.name
    if not inside or not (member.isdir() or member.isreg()) or member.issparse():
        raise UserError(f"hostile archive: {member.name!r} is no plain file or folder inside it; nothing was unpacked.")
    return path


@contextmanager
def progress(doing: str, total_bytes: int, start_bytes: int = 0) -> Iterator[Callable[[int], None]]:
    """Gives a function that is told the bytes reached: a bar on a terminal, else a line every few seconds."""
    if sys.stdout.isatty():
        from rich import progress as rich  # 60 ms that --help need not wait for

        columns = (rich.BarColumn(), rich.DownloadColumn(), rich.TransferSpeedColumn(), rich.TimeRemainingColumn())
        with rich.Progress(rich.TextColumn(doing), *columns, transient=True) as bar:
            task = bar.add_task(doing, total=total_bytes, completed=start_bytes)
            yield lambda reached_bytes: bar.update(task, completed=reached_bytes)
        return
    begun_s = printed_s = time.monotonic()

    def show(reached_bytes: int) -> None:
        nonlocal printed_s
        if (now_s := time.monotonic()) - printed_s >= SECONDS_BETWEEN_LINES:
            printed_s, speed = now_s, (reached_bytes - start_bytes) / (now_s - begun_s)
            done = f"{amount(reached_bytes)} of {amount(total_bytes)} ({reached_bytes / total_bytes:.0%})"
            left_min = (total_bytes - reached_bytes) / max(speed, 1) / 60
            print(f"{doing}: {done}, {amount(speed)}/s, {left_min:.1f} min left", flush=True)

    yield show


def amount(size_bytes: float) -> str:
    return f"{size_bytes / 1e9:.2f} GB" if size_bytes >= 1e9 else f"{size_bytes / 1e6:.1f} MB"
