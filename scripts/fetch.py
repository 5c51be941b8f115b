"""Fetch a published set of real images from its publisher: mvtec, mvtec2, visa or btad.

    python scripts/fetch.py mvtec --accept-license                            # all 15 categories into data/mvtec
    python scripts/fetch.py mvtec --accept-license --categories bottle,pill   # downloads all, unpacks these two

MVTec AD is one archive of 5.26 GB, about 11 GB of disk while it is unpacked. Whatever stops it, the same command
resumes: everything unfinished lies in OUT/.fetch, so a category beside that folder is always whole.
"""

if __name__ == "__main__":
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from pretrain.command import start
    from scripts.fetch import Config

    start("scripts.fetch:main", Config)

import hashlib
import json
import re
import shlex
import shutil
import stat
import sys
import tarfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.client import HTTPException, HTTPResponse, InvalidURL
from pathlib import Path, PurePosixPath
from typing import BinaryIO
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from pretrain.command import Names, UserError, nearest
from pretrain.files import sole_writer
from pretrain.reading import read_json
from scripts.published_sets import SETS, Published

# Beyond, an archive is a bomb: photographs hardly shrink, and uncompressed ones (BTAD's) by half.
MOST_TIMES = 10
PIECE_BYTES = 1 << 20
SECONDS_BETWEEN_LINES = 5


@dataclass(frozen=True)
class Config:
    """Fetch a published set of real images from its publisher; the same command resumes a stopped one.

    Attributes:
        name: Which set; mvtec, mvtec2, visa or btad.
        accept_license: I accept the license under which its publisher gives the images; without this, it is named.
        categories: Only these are unpacked, such as bottle,pill; without this, all. The download is whole anyway.
        out: Folder that receives the categories; those already in it are left untouched. Default is data/NAME.
        keep_archive: Keep the archive, so that categories can be added later without another download.
        url: Where the archive is, http or https. Default is the publisher's.
        sha256: SHA-256 that the archive must have. Default is that of the publisher's.
        timeout_s: Seconds without a single byte after which a connection counts as broken.
        retries: Attempts after a broken connection; counted anew whenever one got further than all before.
        wait_s: Seconds before the first of these attempts, doubled before each further one, at most 60.
    """

    name: tuple[str, ...] = field(default=(), metadata={"positional": True})
    accept_license: bool = False
    categories: Names = Names()
    out: Path | None = None
    keep_archive: bool = False
    url: str | None = None
    sha256: str | None = None
    timeout_s: float = 30.0
    retries: int = 6
    wait_s: float = 1.0


def main(config: Config) -> int | None:
    published = chosen(config)
    config = replace(
        config,
        out=config.out or Path("data") / config.name[0],
        url=config.url or published.url,
        sha256=config.sha256 or published.sha256,
    )
    check(config, published)
    asked = config.categories or tuple(published.categories)
    wanted = [category for category in asked if not (config.out / category).exists()]
    if len(wanted) < len(asked):
        print(f"already in {config.out}, left untouched: {', '.join(sorted(set(asked) - set(wanted)))}")
    try:
        if wanted:
            print(f"fetching into {config.out}: {', '.join(wanted)}", flush=True)
            fetch(config, published, wanted)
    except KeyboardInterrupt:
        print("stopped; the same command resumes.", file=sys.stderr)
        return 130
    except OSError as failure:  # a full disk, a folder that may not be written; broken connections never get here
        raise UserError(f"{failure}; put that right, and the same command resumes.") from failure
    print(f"next: python pretrain/simclr.py --data {shlex.quote(str(config.out))}")


def chosen(config: Config) -> Published:
    """The set that was named. Raises UserError for none, several, or one that is unknown."""
    if len(config.name) != 1:
        raise UserError(f"{len(config.name)} sets were named: name one of {', '.join(SETS)}.")
    (name,) = config.name
    if name not in SETS:
        raise UserError(f"no address of a set {name} is known; {nearest(name, SETS)}")
    return SETS[name]


def check(config: Config, published: Published) -> None:
    if not config.accept_license:
        size = f" {amount(published.size_bytes)}" if published.size_bytes else ""
        accepting = (
            f"to accept that, and to download it{size and ','}{size}, type the same command with --accept-license"
        )
        raise UserError(f"{published.publisher} gives {published.title} under {published.license}; {accepting}.")
    for category in config.categories:
        if category not in published.categories:
            known = nearest(category, published.categories)
            raise UserError(f"--categories {category}: {published.title} has no such category; {known}")
    if not re.fullmatch(r"https?://[^\s/]\S*", config.url):
        raise UserError(f"--url {config.url}: give an address that begins with http:// or https://.")
    if not re.fullmatch("[0-9a-fA-F]{64}", config.sha256):
        raise UserError(f"--sha256 {config.sha256}: a SHA-256 is 64 hexadecimal digits.")
    if config.timeout_s <= 0 or config.retries < 0 or config.wait_s < 0:
        raise UserError("--timeout-s must be above 0, --retries and --wait-s must not be below 0.")


def elsewhere(published: Published) -> str:
    """What to do about an address that no longer holds."""
    return f"see {published.page}, give --url or put the archive into --out"


def fetch(config: Config, published: Published, wanted: list[str]) -> None:
    work, kept = config.out / ".fetch", config.out / published.archive
    part, note = work / "archive.part", work / "archive.json"
    with sole_writer(work, "fetches into", "another --out"):  # two that append to one file would spoil it
        # one that is kept, whether by the user or by an earlier run, is read and never changed
        archive = kept if kept.exists() else download(config, published, part, note, wanted)
        print(f"checking the SHA-256 of {amount(archive.stat().st_size)}", flush=True)
        with archive.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != config.sha256.lower():
            if archive == part:  # out of the way, so that the next run begins afresh
                archive = part.rename(config.out / f"wrong_{found[:8]}_{published.archive}")
            wrong = f"wrong bytes: SHA-256 {found} instead of {config.sha256}; nothing was unpacked"
            raise UserError(f"{wrong}; they lie in {archive}: move or delete it, and check --url and --sha256.")
        extract(archive, published, wanted, config.out)
        print(f"unpacked: {', '.join(wanted)}")
        if config.keep_archive and archive == part:
            print(f"the archive is kept as {part.rename(kept)}")
    shutil.rmtree(work)


def check_disk(folder: Path, archive_bytes: int, missing_bytes: int, published: Published, wanted: list[str]) -> None:
    """Room for the missing bytes of the archive, and for the wanted part of it unpacked with a tenth for blocks."""
    unpacked_share = sum(published.categories[category] for category in wanted) / sum(published.categories.values())
    needed_bytes, free_bytes = missing_bytes + 1.1 * archive_bytes * unpacked_share, shutil.disk_usage(folder).free
    if free_bytes < needed_bytes:
        raise UserError(
            f"{folder}: {amount(needed_bytes)} needed, {amount(free_bytes)} free; make room or change --out."
        )


def download(config: Config, published: Published, part: Path, note: Path, wanted: list[str]) -> Path:
    """Bring `part` to its full size, over as many connections as that takes, and return it."""
    furthest_bytes, failures = part.stat().st_size if part.exists() else 0, 0
    while True:
        try:
            return receive(config, published, part, note, wanted)
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


def noted(note: Path) -> tuple[int, str | None]:
    """What was begun: its size, and its ETag or date. Nothing where the note is gone or damaged."""
    try:
        size_bytes, begun = read_json(note, list)
        return int(size_bytes), begun and str(begun)
    except (OSError, ValueError, TypeError):
        return 0, None


def receive(config: Config, published: Published, part: Path, note: Path, wanted: list[str]) -> Path:
    """One connection: append to `part` what is missing, or begin it again where the server's file is another.

    `note` says which file was begun, by its size and by its ETag or date. It is written while there is no `part`.
    """
    size_bytes, begun = noted(note) if part.exists() else (0, None)
    start_bytes = part.stat().st_size if size_bytes else 0
    if size_bytes and start_bytes == size_bytes:
        return part
    headers = {"User-Agent": "heldout"}
    if start_bytes:
        headers |= {"Range": f"bytes={start_bytes}-"} | ({"If-Range": begun} if begun else {})
    with connect(config, published, headers) as response:
        same_range = response.headers.get("Content-Range") == f"bytes {start_bytes}-{size_bytes - 1}/{size_bytes}"
        if response.status == 200:
            size_bytes = whole_size_bytes(config, published, response)
            if start_bytes:
                print("the server sends its file from the beginning: it cannot resume, or the file changed", flush=True)
            part.unlink(missing_ok=True)
            start_bytes = 0
            note.write_text(json.dumps([size_bytes, version(response)]))
        elif not same_range or version(response) not in (None, begun):  # 416, or a 206 with other bytes than asked
            part.unlink(missing_ok=True)
            raise ConnectionError(f"the server no longer has the file begun ({response.status}): from the beginning")
        check_disk(part.parent, size_bytes, size_bytes - start_bytes, published, wanted)
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


def connect(config: Config, published: Published, headers: dict[str, str]) -> HTTPResponse:
    """The server's answer: 200, 206 or 416."""
    try:
        return urlopen(Request(config.url, headers=headers), timeout=config.timeout_s)
    except HTTPError as answer:
        if answer.code == 416:
            return answer
        if answer.code in (408, 429) or answer.code >= 500:
            raise ConnectionError(f"the server answers {answer.code} {answer.reason}") from answer
        raise UserError(f"{config.url} answers {answer.code} {answer.reason}; {elsewhere(published)}.") from answer
    except (ValueError, InvalidURL) as failure:
        raise UserError(f"--url {config.url} is no address: {failure}.") from failure
    except (OSError, HTTPException) as failure:
        raise ConnectionError(f"no connection to {config.url} ({getattr(failure, 'reason', failure)})") from failure


def version(response: HTTPResponse) -> str | None:
    """What tells this file from a later one at the same address. If-Range does not accept a weak ETag."""
    etag = response.headers.get("ETag")
    return etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified")


def whole_size_bytes(config: Config, published: Published, response: HTTPResponse) -> int:
    published_bytes = published.size_bytes if config.sha256.lower() == published.sha256 else 0
    size_bytes = int(response.headers.get("Content-Length") or published_bytes)
    if not size_bytes or published_bytes not in (0, size_bytes):
        expected = published_bytes or "a stated number of"
        offered = f"{config.url} offers {size_bytes} instead of {expected} bytes, none was fetched"
        raise UserError(f"{offered}; {elsewhere(published)}.")
    return size_bytes


def extract(archive: Path, published: Published, wanted: list[str], out: Path) -> None:
    """Unpack beside `out`'s categories, and move them to their places once the whole archive was read and found good.

    One hostile member refuses the whole archive, even in a category that nobody asked for.
    """
    staged, size_bytes, unpacked_bytes = out / ".fetch" / "unpacked", archive.stat().st_size, 0
    shutil.rmtree(staged, ignore_errors=True)  # a killed run's
    check_disk(out, size_bytes, 0, published, wanted)
    try:
        with archive.open("rb") as file, progress("unpacking", size_bytes) as show:
            is_zip = file.peek(4)[:4] == b"PK\x03\x04"
            for path, member_bytes, unpack in zip_members(file) if is_zip else tar_members(file):
                if (unpacked_bytes := unpacked_bytes + member_bytes) > MOST_TIMES * size_bytes + (1 << 20):
                    raise UserError(
                        f"hostile archive: over {MOST_TIMES} times its size when unpacked; nothing was unpacked."
                    )
                inner = below_top_folder(path, published)
                if inner.parts and inner.parts[0] in (*wanted, *published.beside):
                    unpack(staged, inner)
                show(file.tell())
        if lacking := [category for category in wanted if not (staged / category).is_dir()]:
            raise UserError(f"the archive has no images of {', '.join(lacking)}; check --url and --sha256.")
        for name in (*published.beside, *wanted):
            if (staged / name).exists() and not (out / name).exists():
                (staged / name).rename(out / name)
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, RuntimeError, EOFError) as failure:
        raise UserError(
            f"{archive} cannot be unpacked ({failure}): nothing was; check --url and --sha256."
        ) from failure
    finally:
        shutil.rmtree(staged, ignore_errors=True)


# A member's path, its size, and what unpacks it into a folder under another path.
Member = tuple[PurePosixPath, int, Callable[[Path, PurePosixPath], None]]


def tar_members(file: BinaryIO) -> Iterator[Member]:
    """Members of a tar, packed in any way, in the order in which they lie there."""
    with tarfile.open(fileobj=file, mode="r|*", bufsize=PIECE_BYTES) as members:
        for member in members:
            is_plain = (member.isdir() or member.isreg()) and not member.issparse()

            def unpack(folder: Path, path: PurePosixPath, member: tarfile.TarInfo = member) -> None:
                # The filter gives the owner write permission too.
                members.extract(member.replace(name=str(path), deep=False), folder, filter="data")

            yield safe_path(member.name, is_plain), member.size, unpack


def zip_members(file: BinaryIO) -> Iterator[Member]:
    """Members of a zip."""
    with zipfile.ZipFile(file) as members:
        for member in members.infolist():
            mode = member.external_attr >> 16  # 0 where it was packed on Windows
            is_plain = stat.S_IFMT(mode) in (0, stat.S_IFREG, stat.S_IFDIR)

            def unpack(folder: Path, path: PurePosixPath, member: zipfile.ZipInfo = member) -> None:
                if member.is_dir():
                    return
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                with members.open(member) as packed, (folder / path).open("wb") as target:
                    shutil.copyfileobj(packed, target, PIECE_BYTES)

            yield safe_path(member.filename, is_plain), member.file_size, unpack


def below_top_folder(path: PurePosixPath, published: Published) -> PurePosixPath:
    """A member's path without the folder that some archives put everything into."""
    known = {*published.categories, *published.beside}
    has_top = len(path.parts) > 1 and path.parts[0] not in known and path.parts[1] in known
    return PurePosixPath(*path.parts[1:]) if has_top else path


def safe_path(name: str, is_plain: bool) -> PurePosixPath:
    """A member's path without its `./`, refused unless it is a plain file or folder that stays inside."""
    path = PurePosixPath(name)
    inside = not path.is_absolute() and ".." not in path.parts and "\\" not in name
    if not inside or not is_plain:
        raise UserError(f"hostile archive: {name!r} is no plain file or folder inside it; nothing was unpacked.")
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
