"""The simulated producer that PyPI's `genicam` ships: three cameras, a red, a green and a blue one, in native code."""

import os
import re
import signal
import threading
import time
from pathlib import Path

import genicam
import numpy as np
import pytest
from line_here import running, surroundings, until

from downstream.stations.checks import check, unanswered
from downstream.stations.config import Config
from downstream.stations.reading_config import read_line
from downstream.stations.sources import genicam as module
from downstream.stations.sources.config import PRODUCERS, GenICam
from downstream.stations.sources.genicam import GenICamSource
from pretrain.command import UserError

VIKY = Path(genicam.__file__).parent / "viky.cti"
FAST = {"AcquisitionFrameRate": 100}


def missing(**options) -> str | None:
    return GenICamSource.what_is_missing(GenICam(**{"producer": VIKY, "serial": "1", **options}))


def camera_of(here):
    return here.station("cap").source._camera


@pytest.fixture
def watching(tmp_path):
    """Frames of sources that run in threads, and what ended them."""
    sources = []

    def watch(**options) -> tuple[GenICamSource, list, list]:
        source = GenICamSource(GenICam(**{"producer": VIKY, **options}), surroundings(tmp_path))
        frames, errors = [], []
        sources.append(source)

        def run() -> None:
            try:
                for frame in source.frames():
                    frames.append(frame)
            except Exception as error:
                errors.append(error)

        source.thread = threading.Thread(target=run, daemon=True)
        source.thread.start()
        return source, frames, errors

    yield watch
    for source in sources:
        source.stop()
        source.thread.join(10)
        assert not source.thread.is_alive() and source._camera.process.returncode is not None


def test_two_cameras_are_told_apart_and_are_as_they_were_told_to_be(watching):
    rgb, color, _ = watching(serial="0", features={"Width": 320, "Height": 200, **FAST})
    _, gray, _ = watching(id="VikyTL_DEV_blue", model="Viky", features={"PixelFormat": "Mono8", **FAST})
    until(lambda: len(color) > 2 and len(gray) > 2)
    assert color[-1].pixels.shape == (200, 320, 3) and gray[-1].pixels.shape == (400, 400, 3)
    assert color[-1].pixels.std() > 1 and np.ptp(color[-1].pixels, axis=2).max() > 50  # a red ball
    assert gray[-1].pixels.std() > 1 and not np.ptp(gray[-1].pixels, axis=2).any()
    arrived = [frame.arrived_s for frame in color]
    assert arrived == sorted(arrived) and time.monotonic() - 20 < arrived[0] < time.monotonic()
    process = rgb._camera.process
    rgb.stop()
    rgb.thread.join(5)
    assert process.returncode == 0  # it gave its camera back


@pytest.mark.parametrize(
    ("options", "words"),
    [({}, "^None$"), ({"serial": None}, "3 cameras are without a serial, an id or a model"),
     ({"features": {"Widht": 640}}, "the camera has no feature Widht; did you mean Width")],
)  # fmt: skip
def test_what_a_check_says_of_a_camera_is_a_sentence(options, words):
    assert re.search(words, str(missing(**options)))


def test_what_is_no_image_ends_it_by_a_sentence(watching):
    _, frames, errors = watching(serial="1", features={"GenDCStreamingMode": True})
    until(lambda: errors)
    assert not frames and isinstance(errors[0], UserError) and "it sends no images but GENDC" in str(errors[0])


def test_the_first_of_several_parts_is_the_image(watching):
    _, frames, _ = watching(serial="1", features={"ComponentSelector": "Range", "ComponentEnable": True, **FAST})
    until(lambda: frames)
    assert frames[0].pixels.shape == (400, 400, 3) and frames[0].pixels.std() > 1


def test_a_producer_that_is_no_library_says_so(tmp_path):
    (tmp_path / "torn.cti").write_bytes(b"no library")
    assert "torn.cti cannot be loaded" in missing(producer=tmp_path / "torn.cti")


def test_a_process_that_dies_or_hangs_is_the_camera_s_alone(onnx_file, tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(module, "END_S", 1.0)
    source = {"type": "genicam", "producer": str(VIKY), "serial": "2", "features": {"PixelFormat": "Mono8"}}
    stations = [{"name": "cap", "source": source, "budget_ms": 20_000, "silence_s": 2.0}]
    with running(onnx_file, tmp_path, stations) as here:
        here.wait_for(2)
        for number in (signal.SIGSEGV, signal.SIGSTOP):
            process, count = camera_of(here).process, len(here.signals())
            os.kill(process.pid, number)
            until(lambda process=process: camera_of(here) and camera_of(here).process is not process)
            here.wait_for(count + 2)
            until(lambda: here.station("cap").state(0).mode == "running")
            assert process.wait(10) == -(signal.SIGSEGV if number == signal.SIGSEGV else signal.SIGKILL)
        last = camera_of(here).process
    assert last.wait(10) == 0
    assert "ended (SIGSEGV)" in capfd.readouterr().err


def test_one_camera_is_one_station_s(tmp_path):
    source = {"type": "genicam", "producer": str(VIKY), "serial": "2"}
    stations = [{"name": name, "source": source, "model": "mean"} for name in ("cap", "lid")]
    config = Config(stations=stations, models=tmp_path)
    with pytest.raises(UserError, match="cap, source and station lid, source have .* the GenICam camera 2:"):
        check(config, read_line(config))


def test_a_check_names_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.delenv(PRODUCERS, raising=False)
    station = {"name": "cap", "source": {"type": "genicam", "serial": "7"}}
    for folders, words in (("", f"no .cti file in the folders of {PRODUCERS}"), (str(tmp_path), "no .cti file")):
        monkeypatch.setenv(PRODUCERS, folders)
        with pytest.raises(UserError, match=words):
            read_line(Config(stations=[station]))
    with pytest.raises(UserError, match="there is no producer /no/such.cti"):
        read_line(Config(stations=[{"name": "cap", "source": {**station["source"], "producer": "/no/such.cti"}}]))
    monkeypatch.setenv(PRODUCERS, os.pathsep.join([str(tmp_path), str(VIKY.parent)]))
    (warning,) = unanswered(read_line(Config(stations=[station])))
    shown = r"no camera is 7: those that the producer shows are Viky \(serial '0', id 'VikyTL_DEV_red'\);"
    assert re.match(f"station cap, source: {shown}", warning)
