"""A camera of the tests' own that speaks RTSP: H.264 in RTP within the connection, packed by FFmpeg's own muxer."""

import socket
import threading
import time
from contextlib import suppress
from itertools import count

import av
import numpy as np
from av.error import FFmpegError
from plug import Plugged

SDP = (
    "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=camera\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n"
    "m=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\na=fmtp:96 packetization-mode=1\r\na=control:track\r\n"
)
PACKETS = {"packetsize": "1300"}
SENDER_REPORTS = range(200, 205)  # RTCP's types of packets


class RtspCamera(Plugged):
    """At `url`. `pixels` is what it shows."""

    def __init__(self, pixels: np.ndarray, rate: int = 20) -> None:
        self.pixels, self.rate, self.methods = pixels, rate, []
        super().__init__()

    @property
    def url(self) -> str:
        return f"rtsp://127.0.0.1:{self.port}/stream"

    def _answer(self, connection: socket.socket) -> None:
        with suppress(OSError), connection.makefile("rb") as asked:
            while first := asked.read(1):
                if first == b"$":  # a report of the receiver's
                    _, *length = asked.read(3)
                    asked.read(int.from_bytes(length, "big"))
                    continue
                method, headers = (first + asked.readline()).split()[0].decode(), {}
                while (header := asked.readline().strip()) and b":" in header:
                    name, _, value = header.decode().partition(":")
                    headers[name.lower()] = value.strip()
                self.methods.append(method)
                more, body = self._told(method, headers)
                connection.sendall(
                    f"RTSP/1.0 200 OK\r\nCSeq: {headers.get('cseq', 0)}\r\nSession: 1\r\n{more}\r\n{body}".encode()
                )
                if method == "PLAY":
                    threading.Thread(target=self._play, args=(connection,), daemon=True).start()

    def _told(self, method: str, headers: dict[str, str]) -> tuple[str, str]:
        if method == "OPTIONS":
            return "Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN\r\n", ""
        if method == "DESCRIBE":
            return f"Content-Base: {self.url}/\r\nContent-Type: application/sdp\r\nContent-Length: {len(SDP)}\r\n", SDP
        return (f"Transport: {headers['transport']}\r\n" if method == "SETUP" else ""), ""

    def _play(self, connection: socket.socket) -> None:
        with suppress(OSError, FFmpegError), av.open(Interleaved(connection), "w", "rtp", options=PACKETS) as out:
            stream = out.add_stream("libx264", rate=self.rate, options={"tune": "zerolatency", "preset": "ultrafast"})
            stream.height, stream.width = self.pixels.shape[:2]
            stream.pix_fmt, stream.gop_size = "yuv420p", 5
            for number in count():
                frame = av.VideoFrame.from_ndarray(self.pixels, format="rgb24")
                frame.pts = number
                out.mux(stream.encode(frame))
                time.sleep(1 / self.rate)


class Interleaved:
    """What FFmpeg writes a packet to: RTP goes into channel 0 of the connection, RTCP into 1."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def write(self, packet: bytes) -> int:
        channel = int(packet[1] in SENDER_REPORTS)
        self._connection.sendall(b"$" + bytes([channel]) + len(packet).to_bytes(2, "big") + packet)
        return len(packet)
