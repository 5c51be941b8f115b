"""The process of one GenICam camera, told on standard input what to open; genicam.py starts it and reads from it.

Its main thread waits for that input to end, another one works with the camera. A call into a producer that does not
return ends the process, by a watchdog that needs no lock of Python's. What native code prints goes to standard error.
"""

import faulthandler
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from io import FileIO
from typing import Any, NoReturn

import numpy as np

from downstream.stations.sources.genicam import END_S, FRAME, HEAD, LOST, REFUSED, WELL
from downstream.stations.sources.pixel_formats import rgb_of
from pretrain.command import UserError, installed_by
from pretrain.reading import parse_json

try:
    from genicam.genapi import EAccessMode, EInterfaceType
    from genicam.gentl import PAYLOADTYPE_INFO_IDS
    from harvesters.core import DeviceInfo, Harvester, ImageAcquirer, ParameterKey, ParameterSet
    from harvesters.util.pfnc import dict_by_ints
except ModuleNotFoundError as missing:
    sys.exit(f"a GenICam camera needs {missing.name}: {installed_by('genicam')}.")

# Between two looks whether to end; a frame that comes meanwhile is not kept waiting.
LOOK_S = 0.2
# Without a frame for so long the camera is asked whether it is there.
ASK_S = 1.0
IMAGES = (PAYLOADTYPE_INFO_IDS.PAYLOAD_TYPE_IMAGE, PAYLOADTYPE_INFO_IDS.PAYLOAD_TYPE_CHUNK_DATA,
          PAYLOADTYPE_INFO_IDS.PAYLOAD_TYPE_MULTI_PART)  # fmt: skip
WRITABLE = (EAccessMode.RW, EAccessMode.WO)


def main() -> NoReturn:
    for each in (signal.SIGINT, signal.SIGTERM):  # that the whole group of processes is sent: the line ends this one
        signal.signal(each, signal.SIG_IGN)
    pipe = FileIO(os.dup(1), "wb")
    os.dup2(2, 1)
    told, is_ending = parse_json(sys.stdin.buffer.readline()), threading.Event()
    working = threading.Thread(target=_work, args=(told, pipe, is_ending), daemon=True)
    working.start()
    sys.stdin.buffer.read()
    is_ending.set()
    faulthandler.dump_traceback_later(END_S, exit=True)
    working.join()
    os._exit(0)


def _work(told: Mapping, pipe: FileIO, is_ending: threading.Event) -> None:
    watch = _Watch(told["timeout_s"], is_ending)
    harvester = Harvester()
    try:
        camera = opened(harvester, told["producers"], told["wanted"])
        watch.look()
        for name, value in told["features"].items():
            set_feature(camera.remote_device.node_map, name, value)
            watch.look()
        if told["is_check"]:
            say(pipe, WELL, "")
        else:
            _send_frames(camera, pipe, watch, is_ending)
    except BrokenPipeError:
        pass
    except UserError as error:
        say(pipe, REFUSED, str(error))
    except Exception as error:  # of the producer's many kinds
        say(pipe, LOST, f"the camera is lost ({_words(error)})")
    finally:
        watch.look()
        try:
            harvester.reset()
        finally:
            os._exit(0)


class _Watch:
    """Ends this process when nobody has looked for `seconds`."""

    def __init__(self, seconds: float, is_ending: threading.Event) -> None:
        self._seconds, self._is_ending, self._looked_s = seconds, is_ending, -math.inf
        self.look()

    def look(self) -> None:
        now_s = time.monotonic()
        if now_s - self._looked_s > LOOK_S and not self._is_ending.is_set():
            self._looked_s = now_s
            faulthandler.dump_traceback_later(self._seconds, exit=True)


def say(pipe: FileIO, kind: bytes, text: str) -> None:
    """Raises BrokenPipeError where nobody listens any more, as `show` does."""
    _write(pipe, kind, 0.0, text.encode(), 0, 0)


def show(pipe: FileIO, pixels: np.ndarray, moment_s: float) -> None:
    """A frame, uint8 (h, w, 3)."""
    _write(pipe, FRAME, moment_s, pixels.tobytes(), *pixels.shape[:2])


def _write(pipe: FileIO, kind: bytes, moment_s: float, data: bytes, height: int, width: int) -> None:
    pipe.write(HEAD.pack(kind, moment_s, len(data), height, width))
    left = memoryview(data)
    while left:
        left = left[pipe.write(left) :]


def _send_frames(camera: ImageAcquirer, pipe: FileIO, watch: _Watch, is_ending: threading.Event) -> None:
    nodes, stream, frame_s = camera.remote_device.node_map, camera.data_streams[0], time.monotonic()
    camera.start()
    while not is_ending.is_set():
        watch.look()
        buffer = camera.try_fetch(timeout=LOOK_S, is_raw=True)
        if buffer is None:
            if time.monotonic() - frame_s > ASK_S:  # a trigger may be waited for, or the cable is out
                frame_s = time.monotonic()
                nodes.Width.get_value(ignore_cache=True)
            continue
        frame_s = time.monotonic()
        try:
            pixels = image_in(buffer, nodes)
        finally:
            stream.queue_buffer(buffer)
        show(pipe, pixels, frame_s)


def opened(harvester: Harvester, producers: Sequence[str], wanted: Mapping[str, str]) -> ImageAcquirer:
    """The one camera that is wanted. Raises UserError."""
    for path in producers:
        try:
            harvester.add_file(path, check_validity=True)
        except OSError as error:
            raise UserError(f"the producer {path} cannot be loaded ({error}).") from None
    harvester.update()
    found = [each for each in harvester.device_info_list
             if all(each.property_dict.get(name) == value for name, value in wanted.items())]  # fmt: skip
    if len(found) != 1:
        there = "; ".join(map(_described, harvester.device_info_list)) or "none"
        many = f"{len(found)} cameras are" if found else "no camera is"
        said = " ".join(wanted.values()) or "without a serial, an id or a model"
        raise UserError(f"{many} {said}: those that the producer shows are {there}.")
    try:
        return harvester.create(found[0], config=ParameterSet({
            ParameterKey.TIMEOUT_PERIOD_ON_UPDATE_EVENT_DATA_CALL: int(1e3 * LOOK_S),
            ParameterKey.ENABLE_AUTO_CHUNK_DATA_UPDATE: False,
        }))  # fmt: skip
    except Exception as error:
        raise UserError(f"the camera {_described(found[0])} cannot be opened: does another program have it? "
                        f"({_words(error)})") from None  # fmt: skip


def _described(device: DeviceInfo) -> str:
    said = device.property_dict
    return f"{said['model']} (serial {said['serial_number']!r}, id {said['id_']!r})"


def set_feature(nodes: Any, name: str, value: float | str | bool) -> None:
    """Raises UserError for one that is not there, cannot be set, or does not take the value."""
    try:
        node = nodes.get_node(name)
        kind, mode = node.node.principal_interface_type, node.node.get_access_mode()
    except Exception:
        near = get_close_matches(name, [each.node.name for each in nodes.nodes], 1)  # of hundreds
        hint = f"did you mean {near[0]}?" if near else "the viewer of its vendor shows those that it has."
        raise UserError(f"the camera has no feature {name}; {hint}") from None
    if mode not in WRITABLE:
        raise UserError(f"the feature {name} cannot be set: it is {_MODES.get(mode, 'not available now')}.")
    try:
        if kind == EInterfaceType.intfICommand:
            node.execute()
        elif kind == EInterfaceType.intfIEnumeration and isinstance(value, bool):
            node.value = "On" if value else "Off"  # which YAML reads as truth values
        else:
            node.value = float(value) if kind == EInterfaceType.intfIFloat else value
    except Exception as error:
        reason = f"{_taken(node, kind)} ({_words(error)})"
        raise UserError(f"the feature {name} does not take {value!r}: {reason}.") from None


_MODES = {EAccessMode.RO: "read-only, or locked by another one", EAccessMode.NI: "not implemented"}


def _taken(node: Any, kind: EInterfaceType) -> str:
    """What a feature takes, in words."""
    if kind in (EInterfaceType.intfIInteger, EInterfaceType.intfIFloat):
        return f"it takes {node.min:g} to {node.max:g}"
    if kind == EInterfaceType.intfIEnumeration:
        return f"it takes {', '.join(node.symbolics)}"
    return "it takes true or false" if kind == EInterfaceType.intfIBoolean else "it takes a text"


def image_in(buffer: Any, nodes: Any) -> np.ndarray:
    """uint8 (h, w, 3): its only image, or the first of several parts. What its producer does not know of it, the
    camera's features say. Raises UserError."""
    if buffer.payload_type not in IMAGES:
        kind = PAYLOADTYPE_INFO_IDS(buffer.payload_type).name.removeprefix("PAYLOAD_TYPE_")
        raise UserError(f"it sends no images but {kind}: set its features so that it sends images.")
    is_in_parts = buffer.payload_type == PAYLOADTYPE_INFO_IDS.PAYLOAD_TYPE_MULTI_PART
    image = buffer.parts[0] if is_in_parts else buffer
    code = _said(image, "data_format" if is_in_parts else "pixel_format") or nodes.PixelFormat.get_int_value()
    height, width = (_said(image, name.lower()) or nodes.get_node(name).value for name in ("Height", "Width"))
    padding = _said(image, "x_padding" if is_in_parts else "padding_x")
    offset = _said(image, "data_offset" if is_in_parts else "image_offset")
    data = np.frombuffer(buffer.raw_buffer, np.uint8)[offset:]
    return rgb_of(dict_by_ints.get(code, f"0x{code:08X}"), data, height, width, padding)


def _said(image: Any, name: str) -> int:
    """0 for what the producer does not know."""
    try:
        return getattr(image, name)
    except Exception:
        return 0


def _words(error: Exception) -> str:
    """The first line of what native code says."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
