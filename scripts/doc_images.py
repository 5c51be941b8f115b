"""The images of README.md and docs/, from what `bash scripts/demo.sh` left.

    bash scripts/demo.sh
    python scripts/doc_images.py

detect.png: products that the demo's encoder never saw, beside what `detect run` draws of them; report.png:
the study's report; dashboard.png, review.png and region.png: the service's page with one of the products, what waits
there for a person's word, and a region drawn on it; proof.png and versions.png: what came of such words; products.png:
all products side by side; line.png: the page of a line with the same products. All but the first need Chromium and the
test extra (Playwright, which downloads nothing).
"""

if __name__ == "__main__":
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from pretrain.command import start
    from scripts.config import DocImages

    start("scripts.doc_images:main", DocImages)

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from pretrain.command import UserError
from scripts.config import DocImages

if TYPE_CHECKING:  # the test extra's
    from playwright.sync_api import Page

REPOSITORY = Path(__file__).resolve().parents[1]
IMAGES = REPOSITORY / "docs" / "images"
SHOWN = ("bottle", "pill", "wood")  # what demo.sh holds out
WIDTH_PX, GAP_PX = 400, 12
# Polygons drawn on the bottle for region.png, as shares of the image's side.
REGION = (
    ((0.92, 0.5), (0.8, 0.8), (0.5, 0.92), (0.2, 0.8), (0.08, 0.5), (0.2, 0.2), (0.5, 0.08), (0.8, 0.2)),
    ((0.7, 0.5), (0.64, 0.64), (0.5, 0.7), (0.36, 0.64), (0.3, 0.5), (0.36, 0.36), (0.5, 0.3), (0.64, 0.36)),
    ((0.44, 0.76), (0.56, 0.76), (0.5, 0.84)),
)
AT_TOP = "one => one.scrollIntoView()"
COLORS = 96  # a palette of so many keeps an image below 200 kB


def main(config: DocImages) -> int:
    encoder, report = config.runs / "simclr" / "encoder.safetensors", config.runs / "study" / "report.html"
    if not (encoder.is_file() and report.is_file()):
        raise UserError(f"{config.runs} has no encoder and no report of the demo: bash scripts/demo.sh makes them.")
    IMAGES.mkdir(parents=True, exist_ok=True)
    work = config.runs / "doc-images"
    for category in SHOWN:
        heldout(
            "detect",
            "fit",
            "--data",
            config.data,
            "--category",
            category,
            "--encoder",
            encoder,
            "--out",
            work / "models" / category,
        )
    inspect(config.data, work)
    save(detections(work), "detect")
    photograph(report.resolve().as_uri(), "report")
    dashboard(work)
    line(config.data, work)
    return 0


def heldout(*arguments: object) -> None:
    command = [sys.executable, REPOSITORY / "heldout.py", *arguments]
    code = subprocess.run(list(map(str, command)), check=False).returncode
    if code not in (0, 1):  # 1: something is defective
        raise UserError(f"{' '.join(map(str, command))} ended with exit code {code}.")


def inspect(data: Path, work: Path) -> None:
    for category in SHOWN:
        out = work / f"{category}-run"
        model = work / "models" / category
        heldout("detect", "run", data / category, "--model", model, "--out", out, "--overlays", "all")


def detections(work: Path) -> Image.Image:
    """Of each product the test image with the highest score, as `detect run` draws it: without and with heatmap."""
    drawings = [Image.open(highest(work / f"{category}-run")[1]).convert("RGB") for category in SHOWN]
    drawings = [drawing.resize((WIDTH_PX, WIDTH_PX * drawing.height // drawing.width)) for drawing in drawings]
    step = WIDTH_PX + GAP_PX
    sheet = Image.new("RGB", (len(drawings) * step - GAP_PX, max(drawing.height for drawing in drawings)), "white")
    for column, drawing in enumerate(drawings):
        sheet.paste(drawing, (column * step, 0))
    return sheet


def highest(run: Path) -> tuple[Path, Path]:
    """The image that a run of `detect` gave the highest score, and its drawing."""
    results = [json.loads(line) for line in (run / "results.jsonl").read_text().splitlines()]
    number, result = max(enumerate(results, 1), key=lambda numbered: numbered[1]["score"])
    return Path(result["path"]), run / f"{number:05}-{Path(result['path']).stem}.png"


def dashboard(work: Path) -> None:
    """The page after one image was dropped on it, its queue with more of them, and what is learned from what people say
    of these."""
    category = SHOWN[0]
    path, _ = highest(work / f"{category}-run")
    command = [sys.executable, REPOSITORY / "downstream" / "serve.py", "--models", work / "models", "--port", "0",
               "--model", category, "--results", work / "results.sqlite", "--kept-images", work / "kept"]  # fmt: skip
    with subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, text=True) as server:
        try:
            address = next(line.split()[1] for line in server.stdout if line.startswith("serving: "))
            photograph(address, "dashboard", upload=path)
            for product in SHOWN:
                keep(address, product, work / f"{product}-run")
            photograph(f"{address}/#review", "review")
            photograph(f"{address}/#region", "region", draw=draw_region)
            learn(address, category)
            photograph(f"{address}/#review", "proof", draw=lambda page: page.locator(".learning").evaluate(AT_TOP))
            photograph(address, "versions", upload=path, draw=open_versions)
            photograph(f"{address}/#products", "products")
        finally:
            server.terminate()


def line(data: Path, work: Path) -> None:
    """The page of a line with a station for each product; what comes along the first one is defective."""
    first, *others = SHOWN
    defective = work / "line-defective"
    defective.mkdir(exist_ok=True)
    shutil.copy(highest(work / f"{first}-run")[0], defective)
    folders = [defective, *(data / category / "test" / "good" for category in others)]
    stations = [{"name": category, "model": category, "budget_ms": 10_000,
                 "source": {"type": "replay", "path": str(folder), "rate": 1, "loops": 0}}
                for category, folder in zip(SHOWN, folders, strict=True)]  # fmt: skip
    options = {"models": str(work / "models"), "state": str(work / "line"), "port": 0, "stations": stations}
    (work / "line.yaml").write_text(json.dumps(options))
    command = [sys.executable, REPOSITORY / "downstream" / "line.py", "--config", work / "line.yaml"]
    with subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, text=True) as running:
        try:
            address = next(text.split()[1] for text in running.stdout if text.startswith("line: "))
            photograph(address, "line", draw=lambda page: page.wait_for_timeout(8000))
        finally:
            running.terminate()


def keep(address: str, category: str, run: Path) -> None:
    """Have the service judge and keep every image of a run of `detect`, by the names of their folders."""
    import httpx  # the test extra's

    for line in (run / "results.jsonl").read_text().splitlines():
        path = Path(json.loads(line)["path"])
        image = {"image": (f"{path.parent.name} {path.name}", path.read_bytes())}
        fields = {"keep": "true", "model": category}
        httpx.post(f"{address}/api/test_image", files=image, data=fields, timeout=60).raise_for_status()


def learn(address: str, category: str) -> None:
    """Say of every image of a product what it is, and have the model learn from that."""
    import httpx  # the test extra's

    with httpx.Client(base_url=address, timeout=60) as client:
        for result in client.get("/api/results", params={"model": category, "limit": 500}).json()["results"]:
            is_good = result["name"].startswith("good ")
            wrong = "false_alarm" if is_good else "missed_defect"
            verdict = "agree" if result["is_defective"] != is_good else wrong
            if result["is_kept"]:
                said = client.post("/api/feedback", json={"result": result["id"], "verdict": verdict})
                said.raise_for_status()
        client.post("/api/learn").raise_for_status()
        while client.get("/api/learn").json()["state"] == "runs":
            time.sleep(0.5)


def open_versions(page: "Page") -> None:
    page.locator("#versions-panel summary").click()
    page.locator("#versions li").first.wait_for()
    page.locator("#versions-panel").evaluate(AT_TOP)


def draw_region(page: "Page") -> None:
    """Two zones, and a polygon within one of them that is ignored."""
    width = page.locator("#region-sheet").bounding_box()["width"]
    for share_points in REGION:
        page.get_by_role("button", name="New polygon").click()
        for x, y in share_points:
            page.locator("#region-sheet").click(position={"x": x * width, "y": y * width})
        page.get_by_role("button", name="Close polygon").click()
    for polygon, name in ((1, "wall"), (2, "bottom")):
        page.get_by_label(f"What polygon {polygon} is").select_option("a new zone")
        page.get_by_label("Name", exact=True).last.fill(name)
        page.get_by_label("Name", exact=True).last.press("Tab")
    page.get_by_role("button", name="Polygon 2", exact=True).click()


def photograph(url: str, name: str, upload: Path | None = None, draw: "Callable[[Page], None] | None" = None) -> None:
    """A page in Chromium, 1100 x 700 pixels of it."""
    from playwright.sync_api import sync_playwright  # the test extra's

    programs = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
    chromium = next(filter(None, map(shutil.which, programs)), None)
    if chromium is None:
        raise UserError("Chromium is not installed; on Debian: apt install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium)
        page = browser.new_page(viewport={"width": 1100, "height": 700}, reduced_motion="reduce")
        page.goto(url)
        page.wait_for_timeout(1500)  # thumbnails come one after the other
        if upload:
            page.locator("input[type=file]").first.set_input_files(upload)
            page.locator("#verdict:is([data-state=defective], [data-state=good])").wait_for()
            page.wait_for_timeout(1000)  # the heatmap fades in
        if draw:
            draw(page)
        file = IMAGES / f"{name}.png"
        page.screenshot(path=file)
        browser.close()
    save(Image.open(file), name)


def save(image: Image.Image, name: str) -> None:
    path = IMAGES / f"{name}.png"
    image.convert("RGB").quantize(COLORS).save(path, optimize=True)
    print(f"{path.relative_to(REPOSITORY)}: {path.stat().st_size // 1024} kB")
