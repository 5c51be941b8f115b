"""Records of what operators say: what stands after corrections and undoing, and what is refused."""

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from dying import has_room

from downstream.learning import feedback
from downstream.learning.feedback import Feedback, add_feedback, confirmed, digest_of, read_feedback
from pretrain.command import UserError


def said(digest: str, verdict: str, at: str = "", **more) -> Feedback:
    return Feedback("a.png", verdict, at=at, image_digest=digest, **more)


def test_what_is_said_is_read_again_and_images_are_found_from_the_file(tmp_path):
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(name.encode())
    box = {"box": [1, 2, 30, 40]}
    add_feedback(tmp_path / "feedback.jsonl", Feedback("a.png", "missed defect", box, by="anna", model_version=3))
    add_feedback(tmp_path / "feedback.jsonl", Feedback("b.png", "agree", was_defective=False))
    first, second = read_feedback(tmp_path)
    assert (first.image, first.mask, first.by, first.model_version) == (tmp_path / "a.png", box, "anna", 3)
    assert first.image_digest == digest_of(tmp_path / "a.png") and first.is_defective is True
    assert second.is_defective is False and second.at.endswith("Z")
    assert read_feedback(tmp_path / "feedback.jsonl") == [first, second]


def test_the_last_word_stands_and_can_be_taken_back():
    records = [
        said("1", "false alarm", "2026-01-01"),
        said("1", "missed defect", "2026-01-03", mask={"box": [0, 0, 2, 2]}),
        said("2", "unsure", "2026-01-02"),
        said("3", "agree", "2026-01-02", was_defective=True),
    ]
    assert [(each.digest, each.is_defective) for each in confirmed(records)] == [("1", True), ("3", True)]
    assert confirmed(records)[0].mask == {"box": [0, 0, 2, 2]}
    undone = [said("1", "taken back", "2026-01-04"), *records]  # whatever the order: `at` counts
    assert [(each.digest, each.is_defective, each.mask) for each in confirmed(undone)][0] == ("1", False, None)
    again = [*undone, said("1", "taken back", "2026-01-05"), said("1", "taken back", "2026-01-06")]
    assert [each.digest for each in confirmed(again)] == ["3"]


def test_moments_are_compared_as_moments_and_a_record_without_one_is_the_first():
    records = [
        said("1", "false alarm", "2026-01-01T10:00:00Z"),
        said("1", "missed defect", "2026-01-01T11:30:00+02:00"),  # half an hour before, though its text is higher
        said("1", "missed defect"),
        said("2", "missed defect"),
        said("2", "false alarm"),
    ]
    standing = [(each.digest, each.is_defective) for each in confirmed(records)]
    assert standing == [("1", False), ("2", False)]


def test_a_record_that_is_read_does_not_say_that_it_was_said_now(tmp_path):
    (tmp_path / "a.png").write_bytes(b"image")
    (tmp_path / "feedback.jsonl").write_text(json.dumps({"image": "a.png", "verdict": "missed defect"}))
    add_feedback(tmp_path / "feedback.jsonl", Feedback("a.png", "false alarm"))  # after a line without an end
    first, second = read_feedback(tmp_path)
    assert first.at == "" and second.at and [each.is_defective for each in confirmed([second, first])] == [False]


def test_a_record_that_the_disk_takes_half_of_is_refused_and_not_there(tmp_path):
    """The system says how much it took, and raises nothing: a person's word was lost, and the file spoiled."""
    file, said = tmp_path / "feedback.jsonl", Feedback("a.png", "false alarm")
    add_feedback(file, said)
    whole = file.read_bytes()
    assert not has_room(len(whole) + 10, lambda: add_feedback(file, said))
    assert file.read_bytes() == whole


def test_images_that_somebody_sorted_are_feedback_too(tmp_path):
    for name in ("good/a.png", "defective/b.png", "defective/b_mask.png", "defective/notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    good, defective = confirmed(read_feedback(tmp_path))
    assert (good.image.name, good.is_defective, good.mask) == ("a.png", False, None)
    assert (defective.image.name, defective.mask) == ("b.png", tmp_path / "defective" / "b_mask.png")
    (tmp_path / "good" / "c.png").write_bytes(b"defective/b.png")
    with pytest.raises(UserError, match="c.png lies in defective/ too"):
        read_feedback(tmp_path)
    (tmp_path / "good" / "c.png").rename(tmp_path / "good" / "c_mask.png")
    with pytest.raises(UserError, match="c_mask.png is the mask of no image there"):
        read_feedback(tmp_path)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ({"verdict": "false alrm"}, "did you mean false alarm"),
        ({"verdict": "agree"}, "was_defective must say with what"),
        ({"verdict": "unsure", "maks": 1}, "did you mean mask"),
        ({"verdict": "unsure", "at": 3}, "must be texts"),
        ({"verdict": "unsure", "image": "gone.png"}, "cannot be read"),
        ({"verdict": "missed defect", "mask": {"box": [1, 2]}}, "says not where the defect is"),
        ({"verdict": "missed defect", "mask": {"polygon": [[0, 0], [1, float("nan")], [2, 2]]}}, "says not where"),
        ({"verdict": "missed defect", "mask": [{"box": [1, 2, 3, 4]}, {"circle": []}]}, "says not where"),
        ({"verdict": "missed defect", "mask": {"box": [1, 2, 3, 10**400]}}, "says not where"),
        ({"verdict": "missed defect", "mask": {"box": "1234"}}, "says not where"),
        ({"verdict": "missed defect", "mask": {"box": [True, 2, 3, 4]}}, "says not where"),
        ({"verdict": "missed defect", "mask": {"polygon": ["12", "34", "56"]}}, "says not where"),
        ({"verdict": "missed defect", "mask": {"polygon": {"12": 0, "34": 0, "56": 0}}}, "says not where"),
        ({"verdict": "unsure", "image": "a\0.png"}, "cannot be read"),
        ({"verdict": "unsure", "at": "yesterday"}, "'yesterday' is no moment"),
        ([], "no dict"),
    ],
)
def test_a_record_that_is_none_names_its_line(line, words, tmp_path):
    (tmp_path / "a.png").write_bytes(b"image")
    record = {"image": "a.png", **line} if isinstance(line, dict) else line
    (tmp_path / "feedback.jsonl").write_text("\n" + json.dumps(record) + "\n")
    with pytest.raises(UserError, match=f"line 2, is no record of feedback .*{words}"):
        read_feedback(tmp_path)


def test_a_service_is_asked_by_its_address(tmp_path, monkeypatch):
    (tmp_path / "a.png").write_bytes(b"image")
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append((self.path, self.headers["Authorization"]))
            self.send_response(302 if self.path == "/api/moved" else 200)
            self.send_header("Location", "/api/feedback/export")
            self.end_headers()
            record = {"image": str(tmp_path / "a.png"), "verdict": "false alarm", "mask": None, "model_version": "2a"}
            self.wfile.write(json.dumps(record).encode() + b"\n")

        def log_message(self, *_) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=lambda: [server.handle_request() for _ in range(4)]).start()
        monkeypatch.setenv("HELDOUT_TOKEN", "secret")
        address = f"http://127.0.0.1:{server.server_port}"
        (record,) = read_feedback(address)
        assert read_feedback(f"{address}/api/moved") == [record]
        monkeypatch.setattr(feedback, "MAX_BYTES", 10)
        with pytest.raises(UserError, match="gives more than 10 bytes"):
            read_feedback(address)
    export = "/api/feedback/export"
    assert asked[0] == (export, "Bearer secret")
    assert asked[1:3] == [
        ("/api/moved", "Bearer secret"),
        (export, None),
    ]  # whoever is led to is no holder of the token
    assert record.image == tmp_path / "a.png" and record.model_version == "2a" and record.is_defective is False
    with pytest.raises(UserError, match="gives no feedback .*is the service there"):
        read_feedback(address)


def test_nothing_to_read_says_what_to_give(tmp_path):
    with pytest.raises(UserError, match="there is no file or folder of feedback"):
        read_feedback(tmp_path / "nowhere")
    with pytest.raises(UserError, match="sort some into those"):
        read_feedback(tmp_path)
