"""Whatever was saved is loaded by its folder alone."""

import pytest

from downstream.methods import loading
from downstream.methods.catalogue import METHODS
from downstream.methods.loading import load_any
from pretrain.command import UserError


def test_a_method_of_another_heldout_is_a_mistake(tmp_path, monkeypatch):
    METHODS["mean"].method_class().save(tmp_path)
    assert type(load_any(tmp_path)) is METHODS["mean"].method_class
    monkeypatch.setattr(loading, "METHODS", {})
    with pytest.raises(UserError, match="'MeanImage' that this heldout does not know"):
        load_any(tmp_path)
