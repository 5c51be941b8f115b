"""Images lie by their verdict, with their signal beside them; twice is once."""

import threading
from dataclasses import replace

from line_here import surroundings
from made_signals import verdict

from downstream.service.database import now
from downstream.stations import kept_images
from downstream.stations.signal import Signal
from downstream.stations.sinks.config import Images
from downstream.stations.sinks.images import ImagesSink, plain
from pretrain.command import Names


def keep(folder, signal: Signal) -> None:
    around = surroundings(folder)
    (around.images_folder / f"{signal.id}.png").write_bytes(signal.id.encode())


def test_an_image_lies_where_its_verdict_says(tmp_path):
    sink, signal = ImagesSink(Images(tmp_path / "out"), surroundings(tmp_path)), verdict(7, "fail", name="../x y.png",
                                                                                         frames=1)  # fmt: skip
    keep(tmp_path, signal)
    for _ in range(2):
        sink.send(signal)
    folder = tmp_path / "out" / "cap" / "fail"
    assert sorted(path.name for path in folder.iterdir()) == ["00000007-x_y.json", "00000007-x_y.png"]
    assert (folder / "00000007-x_y.png").read_bytes() == signal.id.encode()
    assert sink.kept_image(signal) == folder / "00000007-x_y.png" and sink.kept_image(verdict(8, "fail")) is None
    assert sink.kept_image(replace(signal, id="of another state")) is None
    assert Signal.from_json((folder / "00000007-x_y.json").read_text()).to_json() == signal.to_json()


def test_an_image_that_comes_a_moment_later_is_waited_for(tmp_path):
    sink, signal = ImagesSink(Images(tmp_path / "out"), surroundings(tmp_path)), verdict(7, frames=1, time=now())
    threading.Timer(0.2, keep, (tmp_path, signal)).start()
    sink.send(signal)
    assert len(list((tmp_path / "out/cap/pass").iterdir())) == 2


def test_one_that_never_comes_is_no_reason_to_stand_still(tmp_path, monkeypatch):
    monkeypatch.setattr(kept_images, "WAIT_S", 0.1)
    sink = ImagesSink(Images(tmp_path / "out"), surroundings(tmp_path))
    sink.send(verdict(1, "fault", frames=1, time=now()))
    monkeypatch.setattr(kept_images, "WAIT_S", 100.0)
    sink.send(verdict(2, "fault", time=now()))
    sink.send(verdict(3, "fault", frames=1))  # long ago: thousands that waited on disk go out at once
    assert sorted(path.suffix for path in (tmp_path / "out/cap/fault").iterdir()) == [".json"] * 3


def test_only_the_verdicts_that_were_asked_for(tmp_path):
    sink = ImagesSink(Images(tmp_path / "out", Names("fail")), surroundings(tmp_path))
    sink.send(verdict(1, "pass"))
    assert not (tmp_path / "out").exists() and plain("....") == "...." and plain("/") == "part"
