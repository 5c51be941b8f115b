"""The card: what stands in the files, nothing that does not, and an interval that holds."""

from dataclasses import replace

import numpy as np
import pytest
from refusals import refusal

from baselines.contract.threshold import threshold_from_normals
from downstream.hub.card import card, local_paths, promise
from downstream.hub.config import Push
from downstream.inspection.decision import AreaRule
from downstream.inspection.inspector import Inspector
from downstream.inspection.roi import DrawnRoi, Zone
from downstream.inspection.zones import zone_rule
from pretrain.encoder import Encoder, fingerprint
from pretrain.weights import Origin, Start

RECIPE = {"steps": 20, "synthetic_auroc": 0.91, "synthetic_auroc_of_start": 0.8, "out": "/home/ann/runs",
          "continues": {"start": "/home/ann/old.safetensors"}}  # fmt: skip


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    origin = Origin("bolts | nuts", ("bolt", "<b>nut"), is_demo=True, recipe=RECIPE)
    return Encoder("timm/test_resnet", origin=origin, started_from=Start("imagenet", "f28f75cb75a0d6e1"))


@pytest.fixture(scope="module")
def model() -> Inspector:
    scores = np.linspace(1, 2, 24).tolist()
    return Inspector(object(), "bolt", 64, threshold_from_normals(scores, 0.1), normal_scores=scores)


def rows(text: str) -> dict[str, str]:
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ") and " | " in line]
    return {line[0]: line[1] for line in lines if len(line) > 1}


def test_an_encoders_card_says_what_it_has_seen(encoder):
    text = card("me/enc", encoder, encoder, Push())
    said = rows(text)
    assert said["started from"] == "imagenet" and said["fingerprint"] == fingerprint(encoder)
    assert said["categories seen"] == r"bolt, \<b\>nut" and said["pretrained on"] == r"bolts \| nuts"
    assert "demo" in said["note"] and said["steps"] == "20"
    assert said["AUROC of synthetic anomalies"] == "0.910 (no interval was recorded); of its start 0.800"
    assert "heldout pull me/enc --out models/enc" in text


def test_an_encoders_figure_has_its_number_of_images_and_an_interval(encoder):
    counts = {"synthetic_auroc_interval": [0.87, 0.94], "synthetic_anomalies": 96, "synthetic_normals": 48}
    origin = replace(encoder.origin, recipe=RECIPE | counts | {"keep": "best"})
    text = card("me/enc", encoder, Encoder("timm/test_resnet", origin=origin), Push())
    assert rows(text)["AUROC of synthetic anomalies"] == (
        "0.910 (95% interval 0.870 to 0.940, 96 anomalies on 48 unseen normals; the highest of its evaluations); "
        "of its start 0.800"
    )


def test_no_license_is_invented(encoder):
    text = card("me/enc", encoder, encoder, Push())
    assert "\nlicense:" not in text and rows(text)["weights"].startswith("not stated")
    text = card("me/enc", encoder, encoder, Push(license="cc-by-nc-sa-4.0", data_license="of the factory, no copies"))
    assert text.startswith("---\n") and "\nlicense: cc-by-nc-sa-4.0\n---" in text
    assert rows(text)["images that it learned from"] == "of the factory, no copies"
    assert "give one such as mit" in refusal(card, "me/enc", encoder, encoder, Push(license="mit\nprivate: no"))


def test_an_encoder_of_unknown_origin_says_so():
    said = rows(card("me/enc", made := Encoder("timm/test_resnet"), made, Push()))
    assert (said["started from"], said["pretrained on"]) == ("not known", "nothing known")


def test_no_path_of_the_machine_is_on_the_card_and_all_of_the_header_are_named(encoder):
    text = card("me/enc", encoder, encoder, Push())
    assert "/home/ann" not in text and rows(text)["out"] == "runs"
    assert sorted(local_paths(RECIPE)) == ["/home/ann/old.safetensors", "/home/ann/runs"]
    texts = ["C:\\data", "data", 3, {"b": "~/x"}, "demo data (/tmp/a b)", "https://a.b/c", "and/or", "1 / 2"]
    assert [*local_paths({"a": texts})] == ["C:\\data", "~/x", "/tmp/a"]


def test_a_models_card_says_for_which_product_and_with_how_many_images(model):
    said = rows(text := card("me/bolt", model, None, Push()))
    assert said["product"] == "bolt" and said["good images"] == "24" and "encoder is" not in text
    assert "for no other product" in text and "detect run" in text


def test_the_promise_holds_for_as_many_draws_as_it_says(model):
    """Of 24 left-out scores the threshold is the 23rd: two of 25 further ones are expected above it."""
    text = promise(model)
    assert "1 of 24 good images" in text and "8.0% are expected" in text
    low, high = (float(part.strip("%")) / 100 for part in text.split("interval ")[1].split(")")[0].split(" to "))
    draws = np.sort(np.random.default_rng(0).random((20_000, 24)))
    alarms = 1 - draws[:, 22]
    assert ((low <= alarms) & (alarms <= high)).mean() == pytest.approx(0.95, abs=0.01)


def test_the_promise_of_zones_is_kept(model):
    """The worst of all zones is above more often than any, and no interval is right for it."""
    drawn = DrawnRoi(zones=tuple(Zone(f"zone {number}", ()) for number in range(4)))
    rng, alarms, model = np.random.default_rng(0), [], replace(model, drawn_roi=drawn)
    for _ in range(300):
        model.zone_rule = zone_rule(drawn.zones, rng.random((40, 4), np.float32), 0.1)
        alarms.append(1 - np.prod([zone.threshold.value for zone in model.zone_rule.zones]))
    said = promise(model)
    assert "interval (" not in said and "zone 3" in said
    bound = float(said.split("at most ")[1].split("%")[0]) / 100
    assert np.mean(alarms) <= bound + 0.002 and bound == pytest.approx(4 / 41, abs=1e-3)
    assert "any in zone 0" in rows(card("me/bolt", model, None, Push()))["smallest region"]


def test_zones_of_too_few_images_promise_nothing_and_given_thresholds_what_was_seen(model):
    scores = np.random.default_rng(0).random((9, 2), np.float32)
    drawn = DrawnRoi(zones=(Zone("left", ()), Zone("given", (), threshold=2.0)))
    few = replace(model, drawn_roi=drawn, zone_rule=zone_rule(drawn.zones, scores, 0.05))
    assert "is not known" in promise(few)
    enough = replace(few, zone_rule=zone_rule(drawn.zones, scores, 0.1))
    assert "at most 20.0% are expected" in promise(enough)  # one of ten further ones in each


def test_the_smallest_region_is_that_of_the_rule_that_decides(model):
    by_area = replace(model, area_rule=AreaRule(40, model.threshold, model.normal_scores))
    assert rows(card("me/bolt", by_area, None, Push()))["smallest region"] == "40 px"


def test_a_threshold_that_is_no_score_promises_nothing(model):
    typed = replace(model, threshold=model.threshold._replace(value=1.2345))
    assert "has no interval" in promise(typed)
