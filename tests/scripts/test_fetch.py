"""scripts/fetch.py against a real local server that breaks off, changes its file, and serves hostile archives."""

import hashlib
import io
import os
import pty
import random
import shutil
import signal
import stat
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from contextlib import suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from made_layouts import MADE

from pretrain.command import run_command
from pretrain.data.layouts import category_folders, scan
from scripts import fetch


def image(path: str) -> bytes:
    return random.Random(path).randbytes(6_000)  # incompressible, like the real ones


def packed(*members: tuple) -> bytes:
    """An archive of (path, content) for files, read-only as the real ones, and (path, kind, target) for all else."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w:xz", preset=0) as archive:
        for path, content, *linkname in members:
            member = tarfile.TarInfo(path)
            if linkname:
                member.type, member.linkname, member.mode, content = content, linkname[0], 0o555, b""
            else:
                member.size, member.mode = len(content), 0o444
            archive.addfile(member, io.BytesIO(content))
    return target.getvalue()


def category(name: str) -> list[tuple]:
    files = ("train/good/000.png", "test/broken/000.png", "ground_truth/broken/000_mask.png", "license.txt")
    return [
        (f"./{name}/train", tarfile.DIRTYPE, ""),
        *((f"./{name}/{file}", image(f"{name}/{file}")) for file in files),
    ]


MVTEC = fetch.SETS["mvtec"]
WHOLE = packed(*sum(map(category, MVTEC.categories), []), ("./license.txt", b"CC"), ("./unknown/file", b""))
PILL = packed(*category("pill"))


class Handler(BaseHTTPRequestHandler):
    log_message = lambda *arguments: None  # noqa: E731

    def do_GET(self):
        server, asked, content = self.server, self.headers["Range"], self.server.content
        server.seen.append((asked, self.headers["If-Range"]))
        start, status, headers = 0, server.status, {"ETag": server.etag} if server.etag else {}
        if self.path == "/moved":
            status, headers = 302, {"Location": "/archive"}
        elif asked and server.ranges and self.headers["If-Range"] in (None, server.etag):
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            status = 206 if start < len(content) else 416
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        body = content[start:] if status in (200, 206) else b""
        self.send_response(status)
        for name, value in {"Content-Length": len(body), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        body = body[: server.breaks.pop(0)] if server.breaks else body
        for position in range(0, len(body), 50_000):
            time.sleep(server.pause_s)
            self.wfile.write(body[position : position + 50_000])
        server.sent_bytes += len(body)
        if server.silent:
            time.sleep(0.5)


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.content, server.etag, server.ranges, server.status = WHOLE, '"one"', True, 200
        server.breaks, server.silent, server.pause_s = (
            [],
            False,
            0,
        )  # after how many bytes each connection ends, and how
        server.seen, server.sent_bytes = [], 0  # what clients asked for, and how much they were sent
        server.handle_error = lambda *arguments: None  # a killed client
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield server
        server.shutdown()


def arguments(server, out: Path, *more: str, name: str = "mvtec") -> list[str]:
    url = f"http://127.0.0.1:{server.server_port}/archive"
    sha256 = hashlib.sha256(server.content).hexdigest()
    typed = {"--out": out, "--url": url, "--sha256": sha256, "--wait-s": 0.01, "--retries": 2}
    return [name, "--accept-license", *(str(word) for pair in typed.items() for word in pair), *more]


def fetched(server, out: Path, *more: str, name: str = "mvtec") -> int:
    return run_command(fetch.main, fetch.Config, arguments(server, out, *more, name=name))


def started(server, out: Path, *more: str, **options) -> subprocess.Popen:
    command = [sys.executable, fetch.__file__, *arguments(server, out, *more)]
    return subprocess.Popen(command, cwd=out.parent, **{"stdout": subprocess.DEVNULL, **options})


def wait_for(condition) -> None:
    for _ in range(5000):
        if condition():
            return
        time.sleep(0.002)
    pytest.fail("waited in vain")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


@pytest.fixture
def out(tmp_path):
    return tmp_path / "mvtec"


def test_whole_download(server, out, capsys):
    assert fetched(server, out) == 0
    assert names(out) == sorted([*MVTEC.categories, "license.txt"])  # no archive, no rest, no unknown
    assert (file := out / "zipper/train/good/000.png").read_bytes() == image("zipper/train/good/000.png")
    assert file.stat().st_mode & 0o200 and file.parents[1].stat().st_mode & 0o200
    assert capsys.readouterr().out.endswith(f"next: python pretrain/simclr.py --data {out}\n")


@pytest.mark.parametrize("silent", [False, True])
def test_broken_off_then_only_the_missing_bytes(server, out, silent):
    server.breaks, server.silent = [120_000, 100_000], silent
    assert fetched(server, out, "--timeout-s", "0.2") == 0
    assert server.seen == [(None, None), ("bytes=120000-", '"one"'), ("bytes=220000-", '"one"')]
    assert server.sent_bytes == len(WHOLE)


def test_neither_giving_up_nor_another_file_costs_progress(server, out, capsys, monkeypatch):
    sha256 = hashlib.sha256(WHOLE).hexdigest()
    monkeypatch.setitem(fetch.SETS, "mvtec", replace(MVTEC, sha256=sha256, size_bytes=len(WHOLE)))
    server.breaks = [120_000, 0, 0]
    assert fetched(server, out) == 2 and len(server.seen) == 3  # the one that brought something, then two retries
    assert "2 more attempts brought nothing new; the same command resumes from 0.1 MB" in capsys.readouterr().err
    server.content, server.etag = b"<html>log in first</html>", None
    assert fetched(server, out, "--sha256", sha256) == 2
    assert f"offers 25 instead of {len(WHOLE)} bytes" in capsys.readouterr().err
    server.content, server.etag = WHOLE, '"one"'
    assert fetched(server, out) == 0 and server.seen[-1] == ("bytes=120000-", '"one"')


@pytest.mark.parametrize("deadly", [signal.SIGKILL, signal.SIGINT])
def test_stopped_download_goes_on(server, out, capsys, deadly):
    server.pause_s = 0.2
    process, part = started(server, out, stderr=subprocess.PIPE, text=True), out / ".fetch" / "archive.part"
    wait_for(lambda: part.exists() and part.stat().st_size > 100_000)
    assert fetched(server, out) == 2 and "another process fetches into" in capsys.readouterr().err
    process.send_signal(deadly)
    words = process.communicate()[1]
    assert words == ("stopped; the same command resumes.\n" if deadly == signal.SIGINT else "")
    reached_bytes, server.pause_s = part.stat().st_size, 0
    assert names(out) == [".fetch"] and reached_bytes < len(WHOLE)
    assert started(server, out).wait() == 0
    assert server.seen[1:] == [(f"bytes={reached_bytes}-", '"one"')] and len(names(out)) == 16


def test_server_that_cannot_resume(server, out, capsys):
    server.ranges, server.breaks = False, [120_000] * 3
    assert fetched(server, out, "--categories", "pill") == 2 and len(server.seen) == 3  # never further: given up
    assert fetched(server, out, "--categories", "pill") == 0 and names(out) == ["license.txt", "pill"]
    assert "from the beginning" in capsys.readouterr().out


@pytest.mark.parametrize("etags", [('"one"', '"two"'), (None, None)], ids=["etag", "no etag"])
@pytest.mark.parametrize("content", [PILL, WHOLE + bytes(1024)], ids=["shorter", "longer"])
def test_file_that_changed_meanwhile(server, out, etags, content):
    server.etag, server.breaks = etags[0], [120_000, 0, 0, 0]
    assert fetched(server, out) == 2
    server.etag, server.breaks, server.content, server.sent_bytes = etags[1], [], content, 0
    assert fetched(server, out, "--categories", "pill") == 0
    assert server.sent_bytes >= len(content)  # from its first byte


def test_wrong_bytes(server, out, capsys):
    right = arguments(server, out, "--categories", "pill")
    server.content = WHOLE[:-1] + b"x"
    wrong = out / f"wrong_{hashlib.sha256(server.content).hexdigest()[:8]}_{MVTEC.archive}"
    assert run_command(fetch.main, fetch.Config, right) == 2 and names(out) == [".fetch", wrong.name]
    assert f"nothing was unpacked; they lie in {wrong}: move or delete it" in capsys.readouterr().err
    server.content, server.sent_bytes = WHOLE, 0
    assert run_command(fetch.main, fetch.Config, right) == 0 and server.sent_bytes == len(WHOLE)


@pytest.mark.parametrize("content", [b"<html>not an archive</html>", PILL], ids=["html", "pill"])
def test_archive_without_the_category(server, out, content):
    server.content = content
    assert fetched(server, out, "--categories", "bottle") == 2 and names(out) == [".fetch"]


HOSTILE = [
    *([(path, b"e")] for path in ("../evil", "bottle/../../evil", "{tmp}/evil", "bottle/..\\evil")),
    [("bottle/link", tarfile.SYMTYPE, "{tmp}/outside"), ("bottle/link/evil", b"e")],
    [("bottle/link", tarfile.LNKTYPE, "{tmp}/outside/kept"), ("bottle/link", b"evil")],
    *([("unasked/evil", kind, "/etc/passwd")] for kind in (tarfile.SYMTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE)),
    *([(path, bytes(32 << 20))] for path in ("bottle/evil", "unasked/evil")),  # a bomb: 32 MiB in 5 kB
]


@pytest.mark.parametrize("members", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_archive(server, out, capsys, members):
    outside = out.parent / "outside"
    outside.mkdir()
    (outside / "kept").write_text("mine")
    members = [[word.format(tmp=out.parent) if isinstance(word, str) else word for word in words] for words in members]
    server.content = packed(*category("bottle"), *members, *category("pill"))
    assert fetched(server, out, "--categories", "bottle,pill") == 2
    assert "error: hostile archive" in capsys.readouterr().err
    assert names(out) == [".fetch"] and "unpacked" not in names(out / ".fetch")
    assert names(out.parent) == ["mvtec", "outside"] and not list(out.rglob("*evil*"))
    assert names(outside) == ["kept"] and (outside / "kept").read_text() == "mine"


@pytest.mark.parametrize("free_bytes", [1000, len(WHOLE)])
def test_full_disk_is_told_before_the_download(server, out, capsys, monkeypatch, free_bytes):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(10**12, 0, free_bytes))
    assert fetched(server, out) == 2
    assert "make room or change --out" in capsys.readouterr().err and not list(out.rglob("*.part"))


def test_some_categories_beside_those_that_are_there(server, out, capsys):
    (out / "bottle" / "mine.png").mkdir(parents=True)
    (out / "license.txt").write_bytes(b"mine")
    assert fetched(server, out, "--categories", "bottle,pill", "--keep-archive") == 0
    assert names(out) == ["bottle", "license.txt", "mvtec_anomaly_detection.tar.xz", "pill"]
    assert names(out / "bottle") == ["mine.png"] and (out / "license.txt").read_bytes() == b"mine"
    assert f"already in {out}, left untouched: bottle" in capsys.readouterr().out
    assert fetched(server, out, "--categories", "wood") == 0 and "wood" in names(out)
    assert len(server.seen) == 1 and (out / "mvtec_anomaly_detection.tar.xz").read_bytes() == WHOLE


def test_kill_while_unpacking_leaves_no_half_category(server, out):
    many = [(f"bottle/test/good/{number:04}.png", b"") for number in range(4000)]
    server.content = packed(*category("bottle"), *many, *category("pill"))
    process = started(server, out, "--categories", "bottle,pill")
    wait_for((out / ".fetch" / "unpacked" / "bottle" / "test" / "good" / "0100.png").exists)
    process.kill()
    assert process.wait() == -signal.SIGKILL and names(out) == [".fetch"]
    assert fetched(server, out, "--categories", "bottle,pill") == 0
    assert names(out) == ["bottle", "pill"] and len(names(out / "bottle" / "test" / "good")) == 4000
    assert len(server.seen) == 1  # the archive was whole already


def test_answers_of_the_server(server, out, capsys):
    moved = f"--url=http://127.0.0.1:{server.server_port}/moved"
    assert fetched(server, out, moved, "--categories", "wood") == 0 and "wood" in names(out)
    server.status = 404
    assert fetched(server, out) == 2 and "answers 404 Not Found" in capsys.readouterr().err
    server.status, server.seen = 503, []  # may pass, so it is asked again
    assert fetched(server, out) == 2 and len(server.seen) == 3
    server.shutdown()
    server.server_close()
    assert fetched(server, out) == 2 and "Connection refused" in capsys.readouterr().err


def test_user_errors(server, out, capsys):
    mistakes = {
        "--no-accept-license": "CC BY-NC-SA 4.0",
        "--categories=botle": "did you mean bottle?",
        "--url=file:///etc/passwd": "http:// or https://",
        "--url=http://[bad/x": "is no address",
        "--sha256=abc": "64 hexadecimal digits",
        "--timeout-s=0": "--timeout-s must be above 0",
    }
    for typed, words in mistakes.items():
        assert fetched(server, out, typed) == 2
        said = capsys.readouterr().err
        assert words in said and said.count("\n") == 1 and not server.seen


def test_progress_piped_and_on_a_terminal(server, out, capsys, monkeypatch):
    monkeypatch.setattr(fetch, "SECONDS_BETWEEN_LINES", 0)
    assert fetched(server, out) == 0
    assert f"downloading: {fetch.amount(len(WHOLE))} of" in capsys.readouterr().out
    ours, theirs = pty.openpty()
    process, shown = started(server, out.parent / "again", stdout=theirs, env={**os.environ, "TERM": "xterm"}), b""
    os.close(theirs)
    with suppress(OSError):  # how a pseudo-terminal says that it was closed
        while piece := os.read(ours, 4096):
            shown += piece
    os.close(ours)
    assert process.wait() == 0 and "downloading" in shown.decode() and "━" in shown.decode()


def zipped(folder: Path, top: str = "") -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, Path(top) / path.relative_to(folder))
    return target.getvalue()


def tarred(folder: Path, mode: str, top: str = ".") -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode=mode) as archive:
        archive.add(folder, top)
    return target.getvalue()


@pytest.mark.parametrize("name", fetch.SETS)
def test_every_set_is_unpacked_so_that_its_layout_is_found_out(name, server, tmp_path):
    made = tmp_path / "made"
    made.mkdir()
    MADE[name](made)
    (made / "license.txt").write_text("terms")
    pack = {
        "mvtec": lambda: tarred(made, "w:xz"),
        "mvtec2": lambda: tarred(made, "w:gz", "mvtec_ad_2"),
        "visa": lambda: tarred(made, "w"),
        "btad": lambda: zipped(made, "BTech_Dataset_transformed"),
    }[name]
    (category,) = category_folders(made)
    published = replace(fetch.SETS[name], categories={category: 1, "other": 1})
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(fetch.SETS, name, published)
        server.content = pack()
        assert fetched(server, tmp_path / "out", "--categories", category, name=name) == 0
    assert scan(tmp_path / "out", layout=name).records and ".fetch" not in names(tmp_path / "out")
    found, expected = scan(tmp_path / "out"), scan(made)
    assert [record.path.relative_to(tmp_path / "out") for record in found.records] == [
        record.path.relative_to(made) for record in expected.records
    ]
    assert [bool(record.mask) for record in found.records] == [bool(record.mask) for record in expected.records]
    assert (tmp_path / "out/license.txt").exists() == ("license.txt" in published.beside)


def hostile_zip(name: str, mode: int, content: bytes) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        member = zipfile.ZipInfo(name)
        member.external_attr, member.compress_type = mode << 16, zipfile.ZIP_DEFLATED
        archive.writestr("01/train/ok/0.bmp", image("0"))
        archive.writestr(member, content)
    return target.getvalue()


@pytest.mark.parametrize(
    ("name", "mode", "content"),
    [("../evil", 0, b"e"), ("/evil", 0, b"e"), ("01/evil", stat.S_IFLNK | 0o777, b"/etc"),
     ("03/evil", 0, bytes(32 << 20))],
)  # fmt: skip
def test_hostile_zip(name, mode, content, server, out, capsys):
    server.content = hostile_zip(name, mode, content)
    assert fetched(server, out, "--categories", "01", name="btad") == 2
    assert "error: hostile archive" in capsys.readouterr().err
    assert names(out) == [".fetch"] and not list(out.parent.rglob("*evil*"))


def test_a_zip_that_is_cut_off(server, out, capsys):
    server.content = hostile_zip("01/b", 0, bytes(5000))[:-40]
    assert fetched(server, out, "--categories", "01", name="btad") == 2
    assert "cannot be unpacked" in capsys.readouterr().err and names(out) == [".fetch"]


def test_a_set_is_named_and_its_terms_are_its_own(capsys):
    for typed, words in ((["visa"], "Amazon gives VisA under CC BY 4.0"), (["btad"], "no commercial use"),
                         (["mvtc"], "did you mean mvtec"), ([], "0 sets were named: name one of mvtec, mvtec2"),
                         (["visa", "btad"], "2 sets were named")):  # fmt: skip
        assert run_command(fetch.main, fetch.Config, typed) == 2
        said = capsys.readouterr().err
        assert words in said and said.count("\n") == 1
