"""Video files that PyAV wrote, and a camera of the test's own that is unplugged, hangs, and wants a password."""

import threading

import numpy as np
import pytest
from line_here import surroundings, until
from mjpeg_camera import MjpegCamera
from rtsp_camera import RtspCamera

from downstream.stations.options import Secret
from downstream.stations.sources.config import Video
from downstream.stations.sources.video import VideoSource, address_of

av = pytest.importorskip("av")
RED, BLUE = np.full((48, 64, 3), (200, 20, 20), np.uint8), np.full((48, 64, 3), (20, 20, 200), np.uint8)


def write_video(path, pictures, rate: int = 20) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=rate)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for pixels in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())


def looks_like(pixels: np.ndarray, color: np.ndarray) -> bool:
    return pixels.shape == color.shape and np.abs(pixels.astype(int) - color).mean() < 12


@pytest.fixture
def camera():
    made = MjpegCamera(RED)
    yield made
    made.pull_the_plug()


@pytest.fixture
def watching(tmp_path):
    sources = []

    def watch(**options) -> tuple[VideoSource, list]:
        source, frames = VideoSource(Video(**options), surroundings(tmp_path)), []
        sources.append(source)
        threading.Thread(target=lambda: [frames.append(frame) for frame in source.frames()], daemon=True).start()
        return source, frames

    yield watch
    for source in sources:
        source.stop()


def test_a_file_is_shown_at_its_rate_and_ends(tmp_path):
    write_video(tmp_path / "a.mp4", [RED] * 5 + [BLUE] * 5)
    source = VideoSource(Video(str(tmp_path / "a.mp4")), surroundings(tmp_path))
    frames = list(source.frames())
    assert len(frames) == 10 and looks_like(frames[0].pixels, RED) and looks_like(frames[-1].pixels, BLUE)
    shown_s = frames[-1].arrived_s - frames[0].arrived_s
    assert shown_s > 0.3
    faster = VideoSource(Video(str(tmp_path / "a.mp4"), rate=1000.0), surroundings(tmp_path))
    frames = list(faster.frames())
    assert len(frames) == 10 and frames[-1].arrived_s - frames[0].arrived_s < shown_s / 2


def test_a_file_that_is_no_video_says_so(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"no video" * 99)
    with pytest.raises(OSError, match="no video that can be read"):
        list(VideoSource(Video(str(tmp_path / "a.mp4")), surroundings(tmp_path)).frames())


def test_a_camera_is_connected_to_anew_when_its_plug_was_pulled(camera, watching):
    source, frames = watching(url=camera.url, timeout_s=2.0)
    until(lambda: len(frames) > 3)
    assert looks_like(frames[-1].pixels, RED) and source.problem is None
    camera.pull_the_plug()
    until(lambda: source.problem)
    assert "does not answer" in source.problem
    camera.pixels, count = BLUE, len(frames)
    camera.plug_in()
    until(lambda: len(frames) > count + 3)
    assert looks_like(frames[-1].pixels, BLUE) and source.problem is None


def test_a_camera_that_hangs_is_connected_to_anew(camera, watching):
    source, frames = watching(url=camera.url, timeout_s=0.5)
    until(lambda: frames)
    camera.is_hanging = True
    until(lambda: source.problem and camera.connections > 1)
    camera.is_hanging, count = False, len(frames)
    until(lambda: len(frames) > count)


def test_a_camera_by_rtsp_is_connected_to_anew(watching):
    camera = RtspCamera(RED)
    source, frames = watching(url=camera.url, timeout_s=5.0)
    until(lambda: len(frames) > 3)
    assert looks_like(frames[-1].pixels, RED) and camera.methods == ["OPTIONS", "DESCRIBE", "SETUP", "PLAY"]
    camera.pull_the_plug()
    until(lambda: source.problem)
    camera.pixels, count = BLUE, len(frames)
    camera.plug_in()
    until(lambda: len(frames) > count + 3)
    assert looks_like(frames[-1].pixels, BLUE) and source.problem is None
    camera.pull_the_plug()


def test_a_password_is_sent_and_never_shown(watching, monkeypatch):
    monkeypatch.setenv("CAMERA_PASSWORD", "se/cret")
    camera = MjpegCamera(RED, login="me:se/cret")
    right = dict(url=camera.url, user="me", password=Secret(env="CAMERA_PASSWORD"))
    _, frames = watching(**right)
    until(lambda: frames)
    refused, none = watching(url=camera.url, user="me")
    until(lambda: refused.problem)
    assert not none and "se" not in refused.problem.replace("does", "").replace("answer", "")
    assert address_of(Video(**right)) == camera.url.replace("//", "//me:se%2Fcret@")
    camera.pull_the_plug()
    until(lambda: "secret" not in str(refused.problem))
