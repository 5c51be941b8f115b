"""Cameras and videos, by PyAV, which brings FFmpeg: USB, RTSP, HTTP, MJPEG, files."""

import threading
import time
from collections.abc import Iterator
from urllib.parse import quote, urlsplit

from downstream.stations.contract import Frame, Source, Surroundings
from downstream.stations.sources.config import Video
from pretrain.command import UserError, installed_by

try:
    import av
    from av.error import FFmpegError
except ModuleNotFoundError:
    raise UserError(f"cameras and videos need PyAV: {installed_by('line')}.") from None

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 10.0
# A camera is looked at, not played: nothing is kept back for a smoother picture.
SOON = {"fflags": "nobuffer", "flags": "low_delay"}


class VideoSource(Source):
    """Fulfills the contract. A file ends; anything else is connected to anew, for as long as it takes."""

    gives_pixels = True

    def __init__(self, options: Video, surroundings: Surroundings) -> None:
        self.options, self.problem, self._stopped = options, None, threading.Event()
        self._is_file = not options.is_device and "://" not in options.url

    def frames(self) -> Iterator[Frame]:
        pause_s, number = FIRST_PAUSE_S, 0
        while not self._stopped.is_set():
            reason = "the stream ended"
            try:
                for pixels in self._pictures():
                    if self._stopped.is_set():
                        return
                    pause_s, self.problem, number = FIRST_PAUSE_S, None, number + 1
                    yield Frame(f"frame {number}", time.monotonic(), pixels=pixels)
            except (FFmpegError, OSError) as error:  # whose text may have the address, and that a password
                reason = error.strerror or type(error).__name__
            if self._is_file:
                if number == 0:
                    raise OSError(f"{self.options.url} is no video that can be read ({reason})")
                return
            self.problem = f"the camera does not answer ({reason})"
            self._stopped.wait(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def stop(self) -> None:
        self._stopped.set()

    def _pictures(self) -> Iterator:
        """uint8 (h, w, 3) RGB of one connection, from its thread alone."""
        options, live = self.options, {} if self._is_file else SOON
        if options.url.startswith("rtsp"):
            live = {**live, "rtsp_transport": options.transport}
        with av.open(
            address_of(options), format=options.format, options=live, timeout=(options.timeout_s, options.timeout_s)
        ) as container:
            stream = container.streams.video[0]
            # Decoding by slices: threads by frames hold back as many frames as there are threads.
            stream.thread_type = "SLICE"
            rate = options.rate or float(stream.average_rate or 25)
            start_s = time.monotonic()
            for number, frame in enumerate(container.decode(stream)):
                if self._is_file and self._stopped.wait(max(0.0, start_s + number / rate - time.monotonic())):
                    return
                yield frame.to_ndarray(format="rgb24")


def address_of(options: Video) -> str:
    """The URL with user and password, where there are any."""
    if options.user is None:
        return options.url
    parts, password = urlsplit(options.url), options.password.value() if options.password else ""
    login = f"{quote(options.user, safe='')}:{quote(password, safe='')}"
    return parts._replace(netloc=f"{login}@{parts.netloc.rpartition('@')[2]}").geturl()
