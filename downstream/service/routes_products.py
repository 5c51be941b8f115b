"""What can be asked of all products at once."""

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Query
from pydantic import Field
from starlette.exceptions import HTTPException

from downstream.service.access import needs
from downstream.service.feedback.records import FeedbackRecords
from downstream.service.openapi import ServiceDependency, error_responses
from downstream.service.products import DAYS, Product, products_of
from downstream.service.schemas import Moment, Schema
from downstream.service.service import NOTED, Service, threshold_in, threshold_name
from downstream.service.watch.summary import drifts_of

PRODUCTS = APIRouter()


class DayResponse(Schema):
    begins: str = Field(description="UTC; it has 24 hours.")
    images: int
    defective: int


class LastChangeResponse(Schema):
    at: str = Field(description="UTC.")
    action: str = Field(description="As the audit log calls it, which says more.", examples=["threshold"])


class ProductResponse(Schema):
    model: str
    is_in_use: bool = Field(description="Whether it judges images that name no model.")
    images_today: int
    defective_today: int
    trend: list[DayResponse] = Field(description=f"{DAYS} days, the last of them today.")
    last_image: str | None = Field(description="UTC; null: it has judged none.")
    last_change: LastChangeResponse | None
    drift: Literal["learning", "as before", "drifted"] | None = Field(
        description="Of scores and of images as a whole, of the version in use; GET /api/watch says more. learning: "
        "too few accepted images to compare with. null: this worker does not hold the model in memory."
    )
    waiting: int = Field(description="Kept images that the version in use judged and nobody has spoken of.")


class ProductsResponse(Schema):
    products: list[ProductResponse] = Field(description="By name.")


@PRODUCTS.get("/api/products", dependencies=[needs("read")], responses=error_responses(422))
async def products(
    service: ServiceDependency,
    today: Annotated[
        Moment | None, Query(description="When today began where it is asked; default: midnight UTC.")
    ] = None,
) -> ProductsResponse:
    """All models that the service holds: what each judged today and in the days before, and what was changed last."""
    try:
        began = today or datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        return await asyncio.to_thread(products_response, service, began)
    except OverflowError:
        raise HTTPException(422, "today must be of the years 1 to 9999, and not their first days.") from None


def products_response(service: Service, began: datetime) -> ProductsResponse:
    """No model is loaded for it: each would put another one out of memory, and be one that images wait for."""
    stored = service.database.settings()
    found = products_of(service.database, service.models.names(), began)
    return ProductsResponse(products=[product_response(service, product, stored) for product in found])


def product_response(service: Service, product: Product, stored: Mapping[str, str]) -> ProductResponse:
    today, change, drift = product.days[-1], product.last_change, None
    if loaded := service.models.in_memory(product.model):
        threshold = threshold_in(stored.get(threshold_name(loaded.name)), loaded)
        drifts = drifts_of(service.database, loaded.name, loaded.fingerprint, threshold)
        drift = "learning" if drifts.scores.cusum is None else "as before"
        drift = "drifted" if drifts.scores.has_drifted or drifts.images.has_drifted else drift
    waiting = FeedbackRecords(service.database).waiting_counts(product.model)
    return ProductResponse(
        model=product.model, is_in_use=product.model == stored.get("model", service.default_model),
        images_today=today.images, defective_today=today.defective,
        trend=[DayResponse(**day._asdict()) for day in product.days], last_image=product.last_image,
        last_change=change and LastChangeResponse(**change._asdict()), drift=drift,
        waiting=waiting.get(stored.get(NOTED + product.model, ""), 0),
    )  # fmt: skip
