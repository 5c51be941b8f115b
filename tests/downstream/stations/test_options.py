"""Secrets come from elsewhere, and addresses from URLs without passwords."""

import pytest

from downstream.stations.options import Address, Secret, address_in, without_password
from pretrain.command import UserError


def test_a_secret_is_read_where_it_stands(tmp_path, monkeypatch):
    (tmp_path / "secret").write_text("from the file\nsecond line\n")
    monkeypatch.setenv("LINE_SECRET", "from the environment")
    assert Secret(file=tmp_path / "secret").value() == "from the file"
    assert Secret(env="LINE_SECRET").value() == "from the environment"


@pytest.mark.parametrize("of", [{}, {"env": "NO_SUCH_SECRET"}, {"env": "A", "file": "b"}])
def test_a_secret_that_is_nowhere_is_refused(of):
    with pytest.raises(UserError):
        Secret(**of).value()


@pytest.mark.parametrize(
    ("url", "address"),
    [("http://a/b", "a:80"), ("http://a:8080", "a:8080"), ("rtsp://user@cam/1", "cam:554"),
     ("http://[::1]:81/", "[::1]:81")],
)  # fmt: skip
def test_an_address_stands_in_a_url(url, address):
    assert str(address_in(url, ("http", "rtsp"))) == address


@pytest.mark.parametrize("url", ["a/b", "ftp://a", "http://", "http://a:port/", "http://me:pass@a/"])
def test_what_is_no_address_or_has_a_password_is_refused_without_showing_it(url):
    with pytest.raises(UserError) as error:
        address_in(url, ("http",))
    assert "pass@" not in str(error.value)
    assert without_password("rtsp://me:pass@a/1") == "rtsp://...@a/1"
    assert Address("::1", 5) == ("::1", 5)
