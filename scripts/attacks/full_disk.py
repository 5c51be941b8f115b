"""A disk that fills up under a command that writes: it says so in a sentence, an old result stays, nothing half is
left, and when there is room again the same command comes to its end."""

import os
import random
import re
from contextlib import suppress
from pathlib import Path

from pretrain.command import UserError
from scripts.attacks.attack import Attack
from scripts.attacks.material import Material, command
from scripts.attacks.serving import small_disk
from scripts.attacks.writers import WRITERS, Writer

DISK_MB, PAGE = 512, 4096


class FullDisk(Attack):
    """One try is one command with less room than it needs, or hardly more; the commands take turns."""

    unit = "a command on a full disk"

    def __init__(self, material: Material) -> None:
        if not may_mount(material.folder):
            raise UserError("no small disk can be mounted here, and so none filled: that takes root on Linux.")
        self._material, self._needed = material, {}

    def attempt(self, chance: random.Random, folder: Path) -> str | None:
        name = list(WRITERS)[self.number % len(WRITERS)]
        if name not in self._needed:
            free = folder / "undisturbed"
            WRITERS[name].prepare(self._material, free)
            before = taken(free)
            if (done := command(*WRITERS[name].words(self._material, free))).returncode not in WRITERS[name].ends_with:
                return f"{name} does not run at all: {done.stderr[-300:]}"
            self._needed[name] = taken(free) - (0 if WRITERS[name].replaces else before)
        with small_disk(folder / "disk", DISK_MB) as disk:
            failed = self._filled(name, disk, chance)
        return failed and f"{name}: {failed}"

    def _filled(self, name: str, disk: Path, chance: random.Random) -> str | None:
        writer, out = WRITERS[name], disk / name
        writer.prepare(self._material, out)
        room = 4 * PAGE + int(chance.uniform(0, 1.2) * self._needed[name])
        filler = fill_but(disk, room)
        done = command(*writer.words(self._material, out))
        said = f"with room for {room} of {self._needed[name]} bytes"
        if done.returncode not in (*writer.ends_with, 2) or "Traceback" in done.stderr:
            return f"{said}: exit code {done.returncode}: {done.stderr[-300:]}"
        if done.returncode == 2 and "space" not in done.stderr:
            return f"{said}: does not say what is wrong: {done.stderr[-300:]}"
        if left := sorted(disk.rglob(".*.part")):
            return f"{said}: leaves {[path.name for path in left]}"
        if done.returncode != 2 or writer.replaces:  # the new one or the old one
            writer.opened(out)
        elif half := half_left(writer, out):
            return f"{said}: leaves half a result: {half}"
        filler.unlink()
        again = command(*writer.words(self._material, out))
        if again.returncode not in writer.ends_with:
            return f"{said}: does not go on: {again.stderr[-300:]}"
        writer.opened(out)
        return None


def half_left(writer: Writer, out: Path) -> str | None:
    """What is wrong with what a command without room left; none where that is whole, is not there, or is said not to be
    finished."""
    try:
        writer.opened(out)
    except FileNotFoundError:
        return None
    except UserError as error:
        return str(error) if re.search("damaged|cut off", str(error)) else None
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


def may_mount(folder: Path) -> bool:
    with suppress(OSError), small_disk(folder / "mounted", 1):
        return True
    return False


def fill_but(disk: Path, room: int) -> Path:
    """A file that takes all the disk but for so many bytes."""
    status, filler = os.statvfs(disk), disk / "filler"
    with open(filler, "wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(PAGE, status.f_bavail * status.f_frsize - room))
    return filler


def taken(folder: Path) -> int:
    """Bytes on a disk of whole pages."""
    return sum(-(-path.stat().st_size // PAGE) * PAGE for path in folder.rglob("*") if path.is_file())
