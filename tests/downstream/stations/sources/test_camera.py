"""What the process of a camera does, done here: opening one of three simulated cameras, and its features."""

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import genicam
import numpy as np
import pytest
from genicam.gentl import PAYLOADTYPE_INFO_IDS
from harvesters.core import Harvester

from downstream.stations.sources.camera import image_in, opened, set_feature
from pretrain.command import UserError

VIKY = str(Path(genicam.__file__).parent / "viky.cti")
HANGS = """
import threading, time
from downstream.stations.sources.camera import _Watch
watch = _Watch(0.5, threading.Event())
while time.monotonic() < watch._looked_s + 60:
    pass
"""


@pytest.fixture(scope="module")
def harvester():
    before = signal.getsignal(signal.SIGINT)  # which harvesters changes
    made = Harvester()
    yield made
    made.reset()
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="module")
def nodes(harvester):
    return opened(harvester, [VIKY], {"serial_number": "1", "model": "Viky"}).remote_device.node_map


def test_features_are_set_by_their_kind(nodes):
    for name, value in {"Width": 320, "AcquisitionFrameRate": 50, "PixelFormat": "Mono8", "ChunkModeActive": False,
                        "GenDCStreamingMode": True}.items():  # fmt: skip
        set_feature(nodes, name, value)
    set_feature(nodes, "FancyBallOperation", True)
    assert (nodes.Width.value, nodes.AcquisitionFrameRate.value, nodes.PixelFormat.value) == (320, 50.0, "Mono8")
    assert nodes.GenDCStreamingMode.value == "On" and nodes.ChunkModeActive.value is False
    set_feature(nodes, "GenDCStreamingMode", False)
    assert nodes.GenDCStreamingMode.value == "Off"


def test_what_a_producer_does_not_know_of_an_image_the_camera_says(nodes):
    class Bare:
        payload_type, raw_buffer = PAYLOADTYPE_INFO_IDS.PAYLOAD_TYPE_IMAGE, bytes(range(200)) * 1000

    for name, value in {"Width": 200, "Height": 300, "PixelFormat": "Mono8"}.items():
        set_feature(nodes, name, value)
    assert np.array_equal(image_in(Bare, nodes)[7, :, 1], np.arange(200)) and image_in(Bare, nodes).shape == (
        300,
        200,
        3,
    )


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("Widht", 640, "the camera has no feature Widht; did you mean Width"),
        ("ExposureTime", 5000, "the camera has no feature ExposureTime; the viewer of its vendor shows"),
        ("Width", 99999, "the feature Width does not take 99999: it takes 100 to 800"),
        ("Width", 640.5, "the feature Width does not take 640.5: it takes 100 to 800"),
        ("AcquisitionFrameRate", "fast", "does not take 'fast': it takes 1 to 200"),
        ("PixelFormat", "Mono12", "does not take 'Mono12': it takes RGBa8, Mono8"),
        ("PixelFormat", True, "does not take True: it takes RGBa8, Mono8"),
        ("ChunkModeActive", "yes", "does not take 'yes': it takes true or false"),
        ("AspectRatio", 2.0, "the feature AspectRatio cannot be set: it is read-only"),
        ("ChunkNrBounces", 2, "the feature ChunkNrBounces cannot be set: it is not available now"),
    ],
)  # fmt: skip
def test_what_a_camera_does_not_take_is_a_sentence(nodes, name, value, words):
    with pytest.raises(UserError) as error:
        set_feature(nodes, name, value)
    assert re.search(words, str(error.value)) and "\n" not in str(error.value)


def test_a_call_that_does_not_return_ends_the_process_alone():
    start_s = time.monotonic()
    ended = subprocess.run([sys.executable, "-c", HANGS], cwd=Path(__file__).parents[4], capture_output=True, text=True)
    assert ended.returncode == 1 and "Timeout" in ended.stderr and time.monotonic() - start_s < 30
