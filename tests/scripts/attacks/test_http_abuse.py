"""What is sent to a service and to a line, and that its faults are found."""

import json
import random
import shutil
from contextlib import closing, nullcontext

from serving_here import serving_here

from scripts.attacks import http_abuse
from scripts.attacks.http_abuse import ONLY_ODD, HttpAbuse, drawn, json_bodies
from scripts.attacks.line_abuse import CALLED, PUSHED, LineAbuse
from scripts.attacks.material import Material

JSON = {"Content-Type": "application/json"}


def test_a_fault_of_a_service_is_found(faulty_service, tmp_path, monkeypatch):
    """A status, a changed score, a traceback in its log, a log without end."""
    monkeypatch.setattr(http_abuse, "served", lambda *_: nullcontext(faulty_service))
    with closing(HttpAbuse(Material(tmp_path))) as attack:
        assert attack.attempt(random.Random(0), tmp_path) is None
        for name, value, said in (
            ("status", 500, "500 Internal"),
            ("score", 2.0, "answered 1.0 is now answered 2.0"),
            ("added_log", "Traceback (most recent", "Traceback"),
            ("added_log", "a line\n" * 100_000, "the log grew by 700000 bytes"),
        ):
            with monkeypatch.context() as changed:
                changed.setattr(faulty_service, name, value)
                assert said in attack.attempt(random.Random(0), tmp_path)
        assert attack.attempt(random.Random(0), tmp_path) is None


def test_bodies_are_drawn_for_every_endpoint_that_takes_json(models_folder, tmp_path):
    models = shutil.copytree(models_folder / "mean", tmp_path / "models" / "mean").parent
    with serving_here(models, tmp_path) as serving:
        described = serving.client.get("/openapi.json").json()
        bodies = json_bodies(described)
        assert {("PUT", "/api/threshold"), ("POST", "/api/feedback"), ("PUT", "/api/roi")} < {of[:2] for of in bodies}
        chance, statuses = random.Random(0), {}
        for _ in range(12):
            for method, path, schema in bodies:
                if path not in ONLY_ODD and "{" not in path:
                    body = json.dumps(drawn(schema, described, chance)).encode()
                    status = serving.client.request(method, path, content=body, headers=JSON).status_code
                    statuses.setdefault(path, set()).add(status)
        assert statuses["/api/threshold"] >= {200, 422}  # what is drawn is taken, and refused
        assert not any(status >= 500 for found in statuses.values() for status in found)


def test_what_is_sent_to_a_service_is_sent_to_a_line_where_it_takes_images():
    aim, chance = object.__new__(LineAbuse), random.Random(0)
    sent = [(make(chance), aim.drawn_body(chance)) for make in http_abuse.ABUSES for _ in range(5)]
    aimed = [aim.aimed(first).data for first, _ in sent] + [second.data for _, second in sent]
    assert not any(b"test_image" in data for data in aimed)
    assert {PUSHED, CALLED} <= {
        data.split(b" ")[1].decode() for data in aimed if data.startswith(b"POST /api/stations")
    }
