"""What can be asked of all products at once."""

import asyncio
from contextlib import suppress
from datetime import UTC, datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Query
from pydantic import Field
from starlette.exceptions import HTTPException

from downstream.service.access import needs
from downstream.service.feedback.records import FeedbackRecords
from downstream.service.models import NoSuchModel
from downstream.service.openapi import ServiceDependency, error_responses
from downstream.service.products import DAYS, Product, products_of
from downstream.service.schemas import Moment, Schema
from downstream.service.service import Service
from downstream.service.watch.summary import drifts_of
from pretrain.command import UserError

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
        "too few accepted images to compare with. null: the model cannot be read."
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
    in_use = service.current().loaded.name
    found = products_of(service.database, service.models.names(), began)
    return ProductsResponse(products=[product_response(service, product, in_use) for product in found])


def product_response(service: Service, product: Product, in_use: str) -> ProductResponse:
    today, change = product.days[-1], product.last_change
    drift, waiting = None, 0
    with suppress(NoSuchModel, UserError):
        loaded, threshold = service.current(product.model)
        drifts = drifts_of(service.database, loaded.name, loaded.fingerprint, threshold)
        drift = "learning" if drifts.scores.cusum is None else "as before"
        drift = "drifted" if drifts.scores.has_drifted or drifts.images.has_drifted else drift
        waiting = FeedbackRecords(service.database).waiting_counts(loaded.name).get(loaded.fingerprint, 0)
    return ProductResponse(
        model=product.model, is_in_use=product.model == in_use,
        images_today=today.images, defective_today=today.defective,
        trend=[DayResponse(**day._asdict()) for day in product.days], last_image=product.last_image,
        last_change=change and LastChangeResponse(**change._asdict()), drift=drift, waiting=waiting,
    )  # fmt: skip
