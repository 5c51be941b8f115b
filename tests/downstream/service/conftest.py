"""What tests of the service share: an empty database of each kind, a browser, and the dashboard with images for it."""

import io
from collections.abc import Iterator

import pytest
from browsing import chromium
from dashboard_page import TOKEN
from PIL import Image
from playwright.sync_api import Browser
from serving import postgres
from serving_here import Here, serving_here
from sqlalchemy import create_engine

from downstream.service.database import url_of


@pytest.fixture(scope="session")
def postgres_url(tmp_path_factory) -> Iterator[str]:
    with postgres(tmp_path_factory.mktemp("postgres") / "server") as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def location(request, tmp_path) -> str:
    """Of a database with nothing in it."""
    if request.param == "sqlite":
        return str(tmp_path / "new" / "results.sqlite")
    url = request.getfixturevalue("postgres_url")
    engine = create_engine(url_of(url))
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP SCHEMA public CASCADE")
        connection.exec_driver_sql("CREATE SCHEMA public")
    engine.dispose()
    return url


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def dashboard(models_folder, tmp_path_factory) -> Iterator[Here]:
    with serving_here(models_folder, tmp_path_factory.mktemp("dashboard"), TOKEN, max_image_mb=1) as serving:
        yield serving
        assert "Traceback" not in serving.log


@pytest.fixture
def serving(dashboard) -> Iterator[Here]:
    """The dashboard's service, which is afterwards as it was at the start."""
    yield dashboard
    dashboard.client.post("/api/load_model", json={"name": "hazelnut"})
    dashboard.client.put("/api/threshold", json={"value": None})


@pytest.fixture(scope="module")
def images(demo_folder) -> dict[str, bytes]:
    """One with a stain, and three good ones."""
    folder = demo_folder / "hazelnut" / "test" / "good"
    files = {f"good {number}.png": (folder / f"00{number}.png").read_bytes() for number in range(3)}
    image = Image.open(folder / "000.png").convert("RGB")
    image.paste((110, 40, 120), (110, 110, 140, 140))
    file = io.BytesIO()
    image.save(file, "PNG")
    return {"bad.png": file.getvalue(), **files}
