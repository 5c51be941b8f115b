"""The examples of docs/export.md, built and run: C++ by OpenVINO, JavaScript by onnxruntime-web in a browser."""

import shutil
import subprocess
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from browsing import chromium, opened
from conftest import REPOSITORY
from PIL import Image

from downstream.methods.exported import Exported

EXAMPLES = REPOSITORY / "scripts" / "examples"
# Of one release, so that its files have these names.
WEB = "onnxruntime-web@1.30.0"
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def image(nut_pixels, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("image") / "nut.png"
    Image.fromarray(nut_pixels[-1]).save(path)
    return path


@pytest.fixture(scope="module")
def expected(onnx_file, nut_pixels):
    return next(Exported(onnx_file).predict([nut_pixels[-1]]))


@pytest.fixture(scope="module")
def inspect(tmp_path_factory) -> Path:
    """The program, as its first lines say how to build it."""
    if shutil.which("g++") is None or find_spec("openvino") is None:
        pytest.skip("g++ or openvino is not installed, so the C++ example is NOT tested here")
    openvino = Path(find_spec("openvino").submodule_search_locations[0])
    program = tmp_path_factory.mktemp("built") / "inspect"
    libraries = [str(path) for path in openvino.glob("libs/libopenvino.so.*")]
    command = [
        "g++",
        "-std=c++17",
        "-Wall",
        "-Wextra",
        EXAMPLES / "inspect_openvino.cpp",
        f"-isystem{openvino}/include",
    ]
    done = subprocess.run(
        [*command, *libraries, f"-Wl,-rpath,{openvino}/libs", "-o", program],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return program


def test_the_program_says_what_the_model_says(inspect, onnx_file, image, expected, tmp_path):
    Image.open(image).save(tmp_path / "nut.ppm")
    done = subprocess.run([inspect, onnx_file, tmp_path / "nut.ppm"], capture_output=True, text=True, check=False)
    score, verdict = done.stdout.split()
    assert float(score) == pytest.approx(float(expected.scores[0]), rel=1e-4)
    assert done.returncode == int(expected.is_anomalous[0]) == int(verdict == "defective")


def test_the_program_answers_mistakes_with_a_sentence(inspect, onnx_file, tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "small.ppm")
    (tmp_path / "cut.ppm").write_bytes(b"P6 64 64 255\n123")
    for name, reason in (
        ("small.ppm", "8 x 8 pixels: stretch it"),
        ("cut.ppm", "is cut off"),
        ("no.ppm", "is no binary PPM"),
    ):
        done = subprocess.run([inspect, onnx_file, tmp_path / name], capture_output=True, text=True, check=False)
        assert done.returncode == 2 and reason in done.stderr
    assert subprocess.run([inspect], capture_output=True, check=False).returncode == 2


@pytest.fixture(scope="module")
def page(onnx_file, tmp_path_factory):
    """The address of the page, with the model and the package beside it."""
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed, so the example for browsers is NOT tested here; on Debian: apt install npm")
    folder = tmp_path_factory.mktemp("page")
    shutil.copytree(EXAMPLES / "browser", folder, dirs_exist_ok=True)
    shutil.copy(onnx_file, folder / "model.onnx")
    packed = subprocess.run(["npm", "pack", "--silent", WEB], cwd=folder, capture_output=True, text=True, check=False)
    if packed.returncode:
        pytest.skip(f"npm has no {WEB} here, so the example for browsers is NOT tested: {packed.stderr[-200:]}")
    shutil.unpack_archive(folder / packed.stdout.split()[-1], folder, filter="data")
    for name in ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm"):
        shutil.copy(folder / "package" / "dist" / name, folder)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/index.html"
    server.shutdown()
    server.server_close()


class Quiet(SimpleHTTPRequestHandler):
    extensions_map = {**SimpleHTTPRequestHandler.extensions_map, ".mjs": "text/javascript"}

    def log_message(self, *_: object) -> None:
        pass


def test_the_page_says_what_the_model_says(page, image, expected):
    with chromium() as browser, opened(browser, page) as tab:
        tab.wait_for_function("document.querySelector('#verdict').textContent.startsWith('ready')")
        tab.set_input_files("#image", image)
        tab.wait_for_function("document.querySelector('#verdict').textContent.includes('score')")
        verdict = tab.text_content("#verdict")
        said, score, place = verdict.replace("score ", "").split(", ", 2)
        assert float(score) == pytest.approx(float(expected.scores[0]), rel=1e-3)
        assert said == ("defective" if expected.is_anomalous[0] else "good")
        y, x = np.unravel_index(expected.maps[0].argmax(), expected.maps[0].shape)
        assert place.startswith(f"most at {x}, {y} of ")
        tab.set_input_files("#image", {"name": "x.png", "mimeType": "image/png", "buffer": b"no image"})
        tab.wait_for_function("document.querySelector('#verdict').textContent.startsWith('this image cannot')")
