"""A service under a steady mixed load for hours: what it holds of memory, descriptors and threads does not grow."""

import random
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import httpx
import numpy as np

from scripts.attacks.attack import Attack
from scripts.attacks.hostile_images import spoiled_image
from scripts.attacks.material import CATEGORY, Material, copied_models
from scripts.attacks.serving import another_score, image_bytes, served

REQUESTS_A_SECOND, SAMPLE_S = 4.0, 5.0
# Until then allocators, threads and decoders find their size. Fewer requests after it say nothing about growth.
WARM_REQUESTS, LEAST_REQUESTS = 2000, 1000
# An image that is kept may be found again: its vector stays in memory, 5 kB of one request in ten. The rest is noise.
MOST_MB_A_THOUSAND, MOST_DESCRIPTORS_A_THOUSAND, MOST_THREADS_A_THOUSAND = 4.0, 1.0, 1.0
SEARCHES = ("/api/results?limit=50", "/api/results?is_defective=true", "/api/results?format=csv", "/api/status",
            "/api/models", "/api/threshold", "/metrics", "/health")  # fmt: skip


class Sample(NamedTuple):
    """What a service and the processes that it started hold, after so many requests."""

    requests: int
    memory_mb: float
    descriptors: int
    threads: int
    folder_mb: float


class Soak(Attack):
    """One try is one request; they come at an even rate."""

    unit = "a request"

    def __init__(self, material: Material) -> None:
        self._folder, self._open = material.folder / "soaked", ExitStack()
        good, defective = (
            [path.read_bytes() for path in sorted((material.data / CATEGORY / "test").glob(f"{kind}/*.png"))]
            for kind in ("good", "[!g]*")
        )
        self._images = good + defective
        models = copied_models(material, material.folder / "models")
        self._serving = self._open.enter_context(served(models, self._folder))
        self._client, self._samples, self._requests = self._serving.client, [], 0
        self._due_s = self._sample_s = time.monotonic()
        self._slowest_s, self._scores = 0.0, {}

    def close(self) -> None:
        self._open.close()

    def attempt(self, chance: random.Random, folder: Path) -> str | None:
        self._due_s = max(self._due_s + 1 / REQUESTS_A_SECOND, time.monotonic())
        time.sleep(max(0.0, self._due_s - time.monotonic()))
        start_s = time.monotonic()
        failed = chance.choice(REQUESTS)(self, chance)
        self._slowest_s = max(self._slowest_s, time.monotonic() - start_s)
        self._requests += 1
        if time.monotonic() >= self._sample_s:
            self._samples.append(sample(self._serving.process.pid, self._folder, self._requests))
            self._sample_s = time.monotonic() + SAMPLE_S
        return failed

    def whole(self, chance: random.Random) -> str | None:
        """An image of the product, which always has the score that it had first."""
        number = chance.randrange(len(self._images))
        answer = self._serving.test(self._images[number], keep=chance.random() < 0.1)
        if answer.status_code != 200:
            return unexpected(answer)
        score = answer.json()["anomaly_score"]
        return another_score(self._scores.setdefault(number, score), score)

    def new(self, chance: random.Random) -> str | None:
        """An image that was never seen, now and then kept."""
        data = image_bytes(chance.randrange(2**32), (chance.randrange(8, 300), chance.randrange(8, 300)))
        fields = {"keep": chance.random() < 0.2, "map": chance.choice(("none", "png", "array"))}
        return unexpected(self._serving.test(data, **fields))

    def spoiled(self, chance: random.Random) -> str | None:
        answer = self._serving.test(spoiled_image(chance).data, keep=chance.random() < 0.2)
        return unexpected(answer, 200, 413, 415, 422)

    def several(self, chance: random.Random) -> str | None:
        files = [("images", ("a.png", chance.choice(self._images))) for _ in range(4)]
        files.append(("images", ("b.png", spoiled_image(chance).data)))
        return unexpected(self._client.post("/api/batch_test", files=files))

    def similar(self, chance: random.Random) -> str | None:
        answer = self._client.post("/api/search", files={"image": ("a.png", chance.choice(self._images))})
        if answer.status_code == 200 and (found := answer.json()["neighbors"]):
            answer = self._client.get(found[-1]["image"])
        return unexpected(answer)

    def asked(self, chance: random.Random) -> str | None:
        return unexpected(self._client.get(chance.choice(SEARCHES)))

    def switched(self, chance: random.Random) -> str | None:
        """Another copy of the model: scores stay what they were."""
        return unexpected(self._client.post("/api/load_model", json={"name": chance.choice(("a", "b"))}))

    def conclude(self, folder: Path) -> str | None:
        samples = [each for each in self._samples if each.requests >= WARM_REQUESTS]
        lines = [",".join(Sample._fields), *(",".join(map(str, each)) for each in self._samples)]
        (folder / "samples.csv").write_text("\n".join(lines) + "\n")
        if len(samples) < 3 or samples[-1].requests - samples[0].requests < LEAST_REQUESTS:
            self.said = f"soak: {self._requests} requests are too few to tell growth from noise"
            return None
        self.said, failed = judged(samples)
        self.said += f" The slowest answer took {self._slowest_s:.2f} s."
        return failed


REQUESTS: tuple[Callable[[Soak, random.Random], str | None], ...] = (
    *[Soak.whole] * 40, *[Soak.new] * 15, *[Soak.spoiled] * 20, *[Soak.several] * 5, *[Soak.similar] * 8,
    *[Soak.asked] * 11, Soak.switched,
)  # fmt: skip


def unexpected(answer: httpx.Response, *allowed: int) -> str | None:
    return None if answer.status_code in (allowed or (200,)) else f"{answer.status_code}: {answer.text[:300]}"


def judged(samples: list[Sample]) -> tuple[str, str | None]:
    """What is held in words, and what of it grows: slopes over all samples, since first and last are noise."""
    thousands = np.array([each.requests for each in samples]) / 1000
    slopes = {
        name: float(np.polyfit(thousands, [getattr(each, name) for each in samples], 1)[0])
        for name in Sample._fields[1:]
    }
    most = {"memory_mb": MOST_MB_A_THOUSAND, "descriptors": MOST_DESCRIPTORS_A_THOUSAND,
            "threads": MOST_THREADS_A_THOUSAND}  # fmt: skip
    grown = [
        f"{name} grows by {slopes[name]:.2f} per 1,000 requests, more than {limit:g}"
        for name, limit in most.items()
        if slopes[name] > limit
    ]
    ranges = [
        f"{name} {min(column):.5g} to {max(column):.5g} ({slopes[name]:+.3f} per 1,000 requests)"
        for name in slopes
        for column in [[getattr(each, name) for each in samples]]
    ]
    warm = f"soak, {len(samples)} samples after the first {samples[0].requests} requests of {samples[-1].requests}: "
    return warm + ", ".join(ranges) + ".", "; ".join(grown) or None


def sample(pid: int, folder: Path, requests: int) -> Sample:
    """Of a process and all that it started. What ends meanwhile counts as nothing."""
    memory_kb, descriptors, threads = 0, 0, 0
    for process in (Path(f"/proc/{number}") for number in tree(pid)):
        try:
            said = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
            descriptors += len(list((process / "fd").iterdir()))
        except OSError:
            continue
        memory_kb += int(said.get("VmRSS", "0 kB").split()[0])
        threads += int(said["Threads"])
    held = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return Sample(requests, memory_kb / 1024, descriptors, threads, held / 1e6)


def tree(pid: int) -> list[int]:
    """A process and its descendants."""
    try:
        listed = [
            int(word) for file in Path(f"/proc/{pid}/task").glob("*/children") for word in file.read_text().split()
        ]
    except OSError:
        listed = []
    return [pid, *(each for child in listed for each in tree(child))]
