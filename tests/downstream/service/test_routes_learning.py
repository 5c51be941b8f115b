"""Learning over HTTP and on the page: begun, proved, promoted; refused where it cannot be; a kill loses nothing."""

import os
import shutil
import signal
import time

import pytest
from browsing import PATIENCE_MS, assert_accessible, opened
from playwright.sync_api import Page, expect
from serving_here import Here, serving_here

from downstream.learning.background import RECORDS
from downstream.learning.versions import FOLDER, PROOF, version_in_use
from downstream.service.routes_learning import MAX_CHANGES, LearningResponse, ProofResponse, begun
from downstream.service.service import LEARNING_FOLDER
from pretrain.files import write_json

expect.set_options(timeout=PATIENCE_MS)
# It gives way to all else that the machine does.
LEARNS_MS = 180_000
SIZES = ({"width": 1280, "height": 860}, {"width": 360, "height": 780})


@pytest.fixture(scope="module")
def serving(fused_folder, models_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("learning")
    shutil.copytree(models_folder / "mean", folder / "models" / "mean")
    shutil.copytree(fused_folder, folder / "models" / "nut")
    with serving_here(folder / "models", folder, model="nut") as serving:
        yield serving


@pytest.fixture(scope="module")
def corrected(serving, sorted_images) -> int:
    """Images that were judged and of which somebody said what they are; one was taken back."""
    for path in sorted(sorted_images.glob("*/*.png")):
        if path.stem.endswith("_mask"):
            continue
        result = serving.test(path.read_bytes(), path.name, keep=True).json()
        is_right = result["is_defective"] == (path.parent.name == "defective")
        wrong = "false_alarm" if result["is_defective"] else "missed_defect"
        body = {"result": result["id"], "verdict": "agree" if is_right else wrong}
        assert serving.client.post("/api/feedback", json=body).status_code == 200
    return 10


def ended(serving: Here) -> LearningResponse:
    for _ in range(LEARNS_MS // 100):
        found = LearningResponse(**serving.client.get("/api/learn").json())
        if found.state != "runs":
            return found
        time.sleep(0.1)
    raise AssertionError("it never ended")


def test_what_cannot_learn_is_told_before_anything_begins(serving):
    assert serving.client.get("/api/learn").json()["state"] == "never"
    for model, status, words in (("nut", 409, "nobody has said"), ("mean", 409, "fused"), ("nothing", 404, "no model")):
        answer = serving.client.post("/api/learn", params={"model": model})
        assert answer.status_code == status and words in answer.json()["detail"]
    assert serving.client.get("/api/learn").json()["state"] == "never"
    answer = serving.client.get("/api/proof", params={"version": 1})
    assert answer.status_code == 404 and "version 1" in answer.json()["detail"]


def test_a_version_is_made_beside_the_one_in_use_and_proved_image_by_image(serving, corrected):
    path = serving.service.models.path_of("nut")
    before = serving.client.get("/api/status").json()
    answer = serving.client.post("/api/learn")
    assert answer.status_code == 202
    begun = LearningResponse(**answer.json())
    assert (begun.state, begun.model, begun.by, begun.number) == ("runs", "nut", "local", 1)
    other = serving.client.post("/api/learn")
    assert other.status_code == 409 and "nut learns just now" in other.json()["detail"]
    found = ended(serving)
    assert (found.state, found.version, found.reason) == ("done", 2, ""), found
    assert version_in_use(path) == 1 and serving.client.get("/api/status").json()["threshold"] == before["threshold"]
    entry = serving.client.get("/api/audit", params={"limit": 1}).json()["entries"][0]
    assert (entry["by"], entry["action"], entry["subject"]) == ("local", "learning", "nut")
    proof = ProofResponse(**serving.client.get("/api/proof", params={"version": 2}).json())
    assert (proof.version, proof.in_use, proof.is_current, proof.confirmed) == (2, 1, True, corrected)
    assert proof.learned["good"] + proof.learned["defective"] + proof.after.good + proof.after.defective == corrected
    assert proof.before.good == proof.after.good and proof.total_changed == len(proof.changes)
    for change in proof.changes:
        assert change.said_before != change.said_after and change.name.endswith(".png")
        assert serving.client.get(change.image).headers["Content-Type"] == "image/jpeg"
    assert serving.client.post("/api/promote", json={"version": 2}).status_code == 200
    assert not serving.client.get("/api/proof", params={"version": 2}).json()["is_current"]
    assert serving.client.post("/api/roll_back").status_code == 200


def test_killed_while_it_learns_it_leaves_the_version_in_use_and_learns_again(serving, corrected, sorted_images):
    path = serving.service.models.path_of("nut")
    image = next((sorted_images / "good").glob("*.png")).read_bytes()
    before = serving.test(image).json()["model_version"]
    assert serving.client.post("/api/learn").status_code == 202
    os.kill(serving.service.learning._process.pid, signal.SIGKILL)
    found = ended(serving)
    assert found.state == "failed" and "ended before it was done" in found.reason
    assert version_in_use(path) == 1 and serving.test(image).json()["model_version"] == before
    status = serving.service.learning.start(path, "nut", [], "ada")  # the next one may begin
    assert status.state == "runs" and ended(serving).state == "failed"  # of no records


def test_what_does_not_begin_is_not_left_in_the_audit_log_as_begun(serving, corrected, monkeypatch):
    records = serving.service.learning._folder / RECORDS
    records.unlink(missing_ok=True)
    records.mkdir(parents=True)  # so that what it learns from cannot be written
    with pytest.raises(OSError):
        begun(serving.service, "nut", "ada")
    records.rmdir()
    last, first = serving.client.get("/api/audit", params={"limit": 2}).json()["entries"]
    assert (first["by"], first["action"], last["by"], last["action"]) == ("ada", "learning", "service", "learning")
    assert last["before"] == first["after"] and last["after"] != first["after"]
    before = serving.client.get("/api/learn").json()
    monkeypatch.setattr(serving.service, "note_change", lambda *_: 1 / 0)  # none learns untold
    with pytest.raises(ZeroDivisionError):
        begun(serving.service, "nut", "ada")
    assert serving.client.get("/api/learn").json() == before and not records.exists()


def test_of_images_that_were_left_out_the_first_are_listed_and_all_are_counted(serving):
    folder = serving.service.models.path_of("nut") / FOLDER / "8"
    folder.mkdir(parents=True)
    figures = {"good": 0, "defective": 0, "false_alarms": 0, "missed": 0, "false_alarm_interval": None,
               "missed_interval": None, "auroc": None, "auroc_interval": None}  # fmt: skip
    problems = [{"image": f"{number}.png", "reason": "gone"} for number in range(MAX_CHANGES + 3)]
    proof = {"in_use": 1, "images": [], "problems": problems, "auroc_difference": None, "learned": {},
             "figures": {"in_use": figures, "new": figures}, "why_not_better": ""}  # fmt: skip
    write_json(folder / PROOF, proof)
    proof = ProofResponse(**serving.client.get("/api/proof", params={"version": 8}).json())
    assert (len(proof.left_out), proof.total_left_out) == (MAX_CHANGES, MAX_CHANGES + 3)
    assert proof.left_out[0] == "0.png: gone"


def test_a_damaged_proof_and_a_damaged_word_of_how_it_went_are_told(serving, corrected):
    folder = serving.service.models.path_of("nut") / "versions" / "7"
    folder.mkdir()
    write_json(folder / PROOF, {"in_use": 1, "images": [{}]})
    answer = serving.client.get("/api/proof", params={"version": 7})
    assert answer.status_code == 409 and "damaged" in answer.json()["detail"]
    status = serving.service.learning._folder / "status.json"
    assert status.parent.name == LEARNING_FOLDER
    status.write_text("{")
    assert serving.client.get("/api/learn").json()["state"] == "never"


def test_a_folder_that_cannot_be_written_is_named(serving, corrected, tmp_path):
    folder = serving.service.learning._folder
    aside = folder.rename(tmp_path / "aside") if folder.exists() else None
    folder.write_text("a file in its place, as root may write everywhere")
    try:
        answer = serving.client.post("/api/learn")
        assert answer.status_code == 507 and str(folder) in answer.json()["detail"]
    finally:
        folder.unlink()
        if aside:
            aside.rename(folder)


def test_the_page_learns_and_shows_the_proof_with_keys_alone(browser, serving, corrected):
    path = serving.service.models.path_of("nut")
    with opened(browser, f"{serving.url}/#review", reduced_motion="reduce") as page:  # colors change at once
        expect(page.locator("#learn-command")).to_contain_text("models/nut")
        pressed(page, "#learn")
        expect(page.locator("#learn")).to_be_disabled()
        expect(page.locator("#learn")).to_be_enabled(timeout=LEARNS_MS)
        expect(page.locator("#learn-words")).to_contain_text("of nut was made")
        number = serving.client.get("/api/learn").json()["version"]
        expect(page.locator("#proof-title")).to_have_text(f"Version {number} beside version 1")
        proof = serving.client.get("/api/proof", params={"version": number}).json()
        rows = page.locator("#proof-figures tbody tr")
        expect(rows.nth(0)).to_contain_text(f"{proof['after']['false_alarms']} of {proof['after']['good']} good")
        expect(rows.nth(1)).to_contain_text(f"{proof['before']['missed']} of {proof['before']['defective']} defective")
        expect(page.locator("#proof-verdict")).to_contain_text("By the rule it is not better: ")
        expect(page.locator("#proof-changes li")).to_have_count(proof["total_changed"])
        if proof["changes"]:
            expect(page.locator("#proof-changes img").first).to_be_visible()
        assert_accessible_everywhere(page, serving.url)
        page.keyboard.press("3")
        pressed(page, "#proof-use")
        expect(page.locator("#spoken")).to_have_text(f"Version {number} judges from now on.")
        expect(page.locator("#proof-use")).to_be_disabled()
        assert version_in_use(path) == number
        pressed(page, "#proof-back")
        expect(page.locator("#proof-use")).to_be_enabled()
        assert version_in_use(path) == 1
        page.keyboard.press("4")  # the products, and from there the queue of one
        card = page.locator("#products-list > li").filter(has_text="nut")
        expect(card).to_contain_text("To review")
        expect(card).to_contain_text("not known yet")
        card.get_by_role("button", name="Review of nut").press("Enter")
        expect(page.locator("#review-count")).to_have_text("nothing of nut to review")
        # Of a model that is not the one in use, until that one is chosen: then no button is for the wrong one.
        page.locator("#model").select_option("mean")
        expect(page.locator("#learn-command")).to_contain_text("models/mean")
        page.evaluate("location.hash = '#products'")
        card.get_by_role("button", name="Review of nut").press("Enter")
        expect(page.locator("#proof")).to_be_visible()
        page.locator("nav a[href='#review']").click()
        expect(page.locator("#proof")).to_be_hidden()


def pressed(page: Page, selector: str) -> None:
    expect(page.locator(selector)).to_be_enabled()
    page.locator(selector).press("Enter")


def assert_accessible_everywhere(page: Page, url: str) -> None:
    """Each view, at both widths, in both schemes."""
    for view in ("review", "products", "history", "region", "inspect"):
        page.goto(f"{url}/#{view}")
        for size in SIZES:
            page.set_viewport_size(size)
            for scheme in ("light", "dark"):
                page.emulate_media(color_scheme=scheme)
                assert_accessible(page)
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), (view, size)
