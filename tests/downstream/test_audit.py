"""The audit log of a service: who changed what, and what tampers with it is found."""

import json
import shutil
from hashlib import sha256
from pathlib import Path

import httpx
import pytest
from migrated import columns, execute, migrated
from serving_here import serving_here
from sqlalchemy import create_engine

from downstream.audit import export, verify
from downstream.inspection.inspector import Inspector
from downstream.service.audit.config import Export, Verify
from downstream.service.audit.log import add_change, all_faults, entries, last_entry, page_before
from downstream.service.audit.page import audit_page
from downstream.service.audit.routes import AuditResponse, VerifyResponse, entry_response, next_before
from downstream.service.database import Database, url_of
from downstream.service.models import fingerprint_of
from downstream.service.tables import AUDIT, FEEDBACK
from pretrain.command import UserError, run_commands
from pretrain.reading import parse_json
from scripts.attacks.serving import image_bytes

USERS = {"ada": "engineer", "bob": "operator", "eve": "auditor"}


@pytest.fixture(scope="module")
def serving(models_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    lines = [f"{name} {role} {sha256(token_of(name).encode()).hexdigest()}" for name, role in USERS.items()]
    (folder / "users.txt").write_text("\n".join(lines))
    with serving_here(models_folder, folder, model="mean", users=folder / "users.txt") as serving:
        yield serving


def token_of(name: str) -> str:
    return f"the token of {name}"


def asked(serving, name: str, method: str, path: str, **more: object) -> httpx.Response:
    headers = {"Authorization": f"Bearer {token_of(name)}"}
    return serving.client.request(method, path, headers=headers, **more)


def inspected(serving, name: str, **fields: object) -> httpx.Response:
    return asked(serving, name, "POST", "/api/test_image", files={"image": ("a.png", image_bytes())}, data=fields)


@pytest.fixture(scope="module")
def changed(serving) -> list[dict]:
    """Entries of what three users did, the oldest first."""
    result = inspected(serving, "bob", keep=True).json()
    said = asked(serving, "bob", "POST", "/api/feedback", json={"result": result["id"], "verdict": "unsure"}).json()
    for value in (0.25, 0.25, 0.5, None):
        assert asked(serving, "ada", "PUT", "/api/threshold", json={"value": value}).status_code == 200
    assert asked(serving, "ada", "POST", "/api/load_model", json={"name": "hazelnut"}).status_code == 200
    assert asked(serving, "bob", "POST", f"/api/feedback/{said['id']}/take_back").status_code == 200
    answer = asked(serving, "eve", "GET", "/api/audit/export")
    return [json.loads(line) for line in answer.text.splitlines()]


def test_who_changed_what_from_what_to_what(serving, changed):
    told = [(entry["by"], entry["action"], entry["subject"]) for entry in changed]
    assert told == [
        ("service", "model version", "hazelnut"), ("service", "model version", "mean"), ("service", "model", "in use"),
        ("bob", "feedback", "result 1"), ("ada", "threshold", "mean"), ("ada", "threshold", "mean"),
        ("ada", "threshold", "mean"), ("ada", "model", "in use"), ("bob", "feedback", "result 1"),
    ]  # fmt: skip
    own = serving.service.models.load("mean").inspector.decision.value
    thresholds = [(entry["before"], entry["after"]) for entry in changed if entry["action"] == "threshold"]
    assert thresholds == [(own, 0.25), (0.25, 0.5), (0.5, own)]
    assert (changed[7]["before"], changed[7]["after"]) == ("mean", "hazelnut")
    assert changed[3]["after"]["verdict"] == "unsure" and changed[8]["after"]["takes_back"] == changed[3]["after"]["id"]
    page = AuditResponse(**asked(serving, "eve", "GET", "/api/audit", params={"limit": 3}).json())
    assert [entry.number for entry in page.entries] == [9, 8, 7] and page.next_before == 7
    whole = VerifyResponse(**asked(serving, "eve", "GET", "/api/audit/verify").json())
    assert whole.is_whole and (whole.last_number, whole.last_digest) == (9, changed[-1]["digest"])


def test_an_export_of_several_pages_has_every_entry(serving, changed, monkeypatch):
    monkeypatch.setattr("downstream.service.streaming.ROWS_PER_PAGE", 2)
    lines = asked(serving, "eve", "GET", "/api/audit/export").text.splitlines()
    assert [json.loads(line) for line in lines] == changed and [one["number"] for one in changed] == list(range(1, 10))


def test_each_role_may_do_its_part_and_no_more(serving, changed):
    answers = {
        (name, path): asked(serving, name, method, path, **body).status_code
        for name in USERS
        for method, path, body in (
            ("GET", "/api/results", {}),
            ("POST", "/api/test_image", {"files": {"image": image_bytes()}}),
            ("POST", "/api/feedback", {"json": {"result": 1, "verdict": "unsure"}}),
            ("PUT", "/api/threshold", {"json": {"value": None}}),
            ("GET", "/api/feedback/export", {}),
            ("GET", "/api/audit", {}),
        )
    }
    refused = {key for key, status in answers.items() if status == 403}
    assert refused == {
        ("bob", "/api/threshold"), ("bob", "/api/feedback/export"), ("bob", "/api/audit"), ("ada", "/api/audit"),
        ("eve", "/api/test_image"), ("eve", "/api/feedback"), ("eve", "/api/threshold"),
    }  # fmt: skip
    assert {status for key, status in answers.items() if key not in refused} == {200}
    status = asked(serving, "bob", "GET", "/api/status").json()
    assert (status["user"], status["rights"]) == ("bob", ["read", "inspect", "say"])
    assert "engineer" in asked(serving, "bob", "PUT", "/api/threshold", json={"value": 1}).json()["detail"]
    assert serving.client.get("/api/results").status_code == 401
    assert asked(serving, "nobody", "GET", "/api/results").status_code == 401
    assert serving.client.get("/health").status_code == 200


def test_what_changed_while_no_service_ran_is_told_before_anything_is_judged(models_folder, tmp_path):
    models = shutil.copytree(models_folder, tmp_path / "models")

    def told(chosen: str | None = None) -> list[tuple]:
        """What a start adds to the log."""
        with serving_here(models, tmp_path) as serving:
            if chosen:
                serving.service.use_model(chosen, "ada")
            found = list(entries(serving.service.database, after=told.last))
        told.last = found[-1].number if found else told.last
        return [(one.by, one.action, one.subject, parse_json(one.before, object), parse_json(one.after, object))
                for one in found]  # fmt: skip

    told.last = 0
    version, used = "model version", "in use"
    fingerprints = {name: fingerprint_of(models / name) for name in ("hazelnut", "mean")}
    assert told() == [
        ("service", version, "hazelnut", None, fingerprints["hazelnut"]),
        ("service", version, "mean", None, fingerprints["mean"]),
        ("service", "model", used, None, "hazelnut"),
    ]
    assert told() == []
    assert told("mean") == [("ada", "model", used, "hazelnut", "mean")]
    # One that nobody asks for is fitted anew, and the one in use taken away.
    inspector = Inspector.load(models / "hazelnut")
    inspector.decide_at(7.0)
    inspector.save(models / "hazelnut")
    shutil.rmtree(models / "mean")
    assert told() == [
        ("service", version, "hazelnut", fingerprints["hazelnut"], fingerprint_of(models / "hazelnut")),
        ("service", version, "mean", fingerprints["mean"], None),
        ("service", "model", used, "mean", "hazelnut"),
    ]


def copied(serving, folder: Path) -> Path:
    """The service's database, to be tampered with."""
    copy = folder / "results.sqlite"
    source = create_engine(url_of(str(serving.service.database)))
    with source.connect() as connection:
        connection.exec_driver_sql(f"VACUUM INTO '{copy}'")
    source.dispose()
    return copy


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("UPDATE audit SET after = '0.1' WHERE number = 5", "entry 5 was changed"),
        ("DELETE FROM audit WHERE number = 4", "entry 4 is missing"),
        ("UPDATE audit SET after = '7' WHERE number = 4", "entry 4 was changed: it names no feedback"),
        ("UPDATE audit SET after = 'x' WHERE number = 4", "entry 4 was changed: it names no feedback"),
        ("UPDATE audit SET after = x'00'", "entry 4 was changed"),
        ("UPDATE feedback SET verdict = 'agree'", "feedback 1 was changed"),
        ("DELETE FROM feedback WHERE id = 2", "feedback 2, of entry 9, is missing"),
        ("INSERT INTO feedback SELECT 99, result_id, verdict, created, \"by\", marks, note, NULL FROM feedback LIMIT 1",
         "feedback 99 was put in beside the service"),
        ("DELETE FROM audit WHERE number >= 9", "entry 9 of the earlier export is missing"),
    ],
)  # fmt: skip
def test_tampering_is_found_by_the_command(serving, changed, statement, words, tmp_path, capsys):
    copy = copied(serving, tmp_path)
    config = Export(results=str(copy), out=tmp_path / "earlier.jsonl")
    assert export(config) is None
    asked_for = Verify(results=str(copy), earlier=config.out)
    assert verify(asked_for) == 0
    assert "whole: " in capsys.readouterr().out
    execute(str(copy), statement)
    assert verify(asked_for) == 1
    assert words in capsys.readouterr().out
    export(Export(results=str(copy), out=tmp_path / "now.jsonl"))  # of whatever is there
    database = Database(str(copy))
    assert all(entry_response(entry).model_dump_json() for entry in entries(database))
    database.close()


@pytest.mark.parametrize("value", ["x'ff'", "CAST(x'ff' AS TEXT)", "1.5"])
def test_whatever_is_put_into_any_column_is_found_and_shown(serving, changed, value, tmp_path):
    """Bytes, bytes that call themselves text, and a number that is none, in each column of one entry or record."""
    copy = copied(serving, tmp_path)
    whole, count = copy.read_bytes(), len(asked(serving, "eve", "GET", "/api/audit/export").text.splitlines())
    assert count >= len(changed)
    for table in (AUDIT, FEEDBACK):
        key = next(iter(table.primary_key)).name
        for column in table.columns:
            if column is FEEDBACK.c.id:  # SQLite itself takes integers alone there
                continue
            copy.write_bytes(whole)
            execute(str(copy), f'UPDATE {table.name} SET "{column.name}" = {value} WHERE "{key}" = 2')
            database = Database(str(copy), is_read_only=True)
            assert list(all_faults(database)) != [], column
            found, listed = list(entries(database)), page_before(database, 99, None)
            assert len(found) == len(listed) == count
            shown = [entry_response(entry).model_dump_json() for entry in (*found, *listed)]
            assert all(map(json.loads, shown)) and audit_page(found, [], "now")
            database.close()
    export(Export(results=str(copy), out=tmp_path / "now.html"))
    assert verify(Verify(results=str(copy))) == 1


@pytest.mark.parametrize("value", ["'x'", "x'ff'"])
def test_the_service_goes_on_after_an_entry_that_has_no_number(value, tmp_path):
    location = str(tmp_path / "results.sqlite")
    database = Database(location)

    def change(after: int) -> None:
        with database.alone() as connection:
            add_change(connection, "ada", "threshold", "bolt", None, after)

    for after in (1, 2, 3):
        change(after)
    execute(location, f"UPDATE audit SET number = {value} WHERE number = 3")
    change(4)
    assert [entry.number for entry in entries(database)][:-1] == [1, 2, 3]
    listed = page_before(database, 1, None)
    assert next_before(listed[0]) > 3 and len(page_before(database, 9, next_before(listed[0]))) == 3
    assert ["its number is none" in fault for fault in all_faults(database)] == [True]
    assert last_entry(database).number == 3
    database.close()


def test_verifying_and_exporting_write_nothing_into_the_database(tmp_path, capsys):
    """One of a heldout whose tables were others: a service would bring it up to date."""
    location = str(tmp_path / "results.sqlite")
    migrated(location, "0004")
    execute(location, "PRAGMA journal_mode=WAL")  # as the service has it
    before = Path(location).read_bytes()
    assert [file.name for file in tmp_path.iterdir()] == ["results.sqlite"]
    tmp_path.chmod(0o500)  # of which root takes no notice
    asked_for = Verify(results=location)
    assert verify(asked_for) == 0 and "no entry yet" in capsys.readouterr().out
    tmp_path.chmod(0o700)
    export(Export(results=location, out=tmp_path / "all.jsonl"))
    assert {file.name for file in tmp_path.iterdir()} == {"results.sqlite", "all.jsonl"}
    assert Path(location).read_bytes() == before
    assert "camera_references" not in columns(location)
    migrated(str(tmp_path / "first.sqlite"), "0002")
    with pytest.raises(UserError, match="has no audit log"):
        verify(Verify(results=str(tmp_path / "first.sqlite")))
    (tmp_path / "text.sqlite").write_text("no database, but text of some length\n" * 100)
    with pytest.raises(UserError, match="cannot be read"):
        verify(Verify(results=str(tmp_path / "text.sqlite")))


def test_the_page_to_be_signed_has_every_entry_and_says_what_is_wrong(tmp_path):
    location, out = str(tmp_path / "results.sqlite"), tmp_path / "all.html"
    database = Database(location)
    with database.alone() as connection:
        for value in range(3):
            add_change(connection, "ada", "threshold", "<b>bolt</b>", None, value)
    told = list(entries(database))
    database.close()
    export(Export(results=location, out=out))
    page = out.read_text()
    assert all(entry.digest in page for entry in told) and "&lt;b&gt;bolt" in page and "<b>" not in page
    assert "none was found to be changed" in page and "not whole" not in page
    execute(location, "UPDATE audit SET \"by\" = 'eve' WHERE number = 2")
    export(Export(results=location, out=out))
    assert "not whole" in out.read_text() and "entry 2 was changed" in out.read_text()


def test_what_is_no_log_or_no_export_is_a_mistake(tmp_path, capsys):
    with pytest.raises(UserError, match="there is no database"):
        verify(Verify(results=str(tmp_path / "none.sqlite")))
    assert not Path(tmp_path / "none.sqlite").exists()
    Database(str(tmp_path / "new.sqlite")).close()
    (tmp_path / "text.jsonl").write_text("{}\n")
    commands = {"verify": (verify, Verify), "export": (export, Export)}
    arguments = ["verify", "--results", str(tmp_path / "new.sqlite")]
    assert run_commands(commands, arguments) == 0
    assert capsys.readouterr().out == "whole: no entry yet.\n"
    assert run_commands(commands, [*arguments, "--earlier", str(tmp_path / "text.jsonl")]) == 2
    assert "is no export of an audit log" in capsys.readouterr().err
    database = Database(str(tmp_path / "new.sqlite"))
    with database.alone() as connection:
        for value in (1, 2, 3):
            add_change(connection, "ada", "threshold", "bolt", None, value)
    database.close()
    export(Export(results=str(tmp_path / "new.sqlite"), out=tmp_path / "cut.jsonl"))
    first, _, third = (tmp_path / "cut.jsonl").read_text().splitlines()
    (tmp_path / "cut.jsonl").write_text(f"{first}\n{third}\n")
    assert run_commands(commands, [*arguments, "--earlier", str(tmp_path / "cut.jsonl")]) == 2
    assert "entry 2 is missing" in capsys.readouterr().err
