"""What can be asked of all products at once."""

import asyncio
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import Field
from starlette.exceptions import HTTPException

from downstream.service.access import needs
from downstream.service.openapi import ServiceDependency, error_responses
from downstream.service.products import DAYS, Product, products_of
from downstream.service.schemas import Moment, Schema
from downstream.service.service import Service

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
    return ProductsResponse(products=[product_response(product, product.model == in_use) for product in found])


def product_response(product: Product, is_in_use: bool) -> ProductResponse:
    today, change = product.days[-1], product.last_change
    return ProductResponse(
        model=product.model, is_in_use=is_in_use, images_today=today.images, defective_today=today.defective,
        trend=[DayResponse(**day._asdict()) for day in product.days], last_image=product.last_image,
        last_change=change and LastChangeResponse(**change._asdict()),
    )  # fmt: skip
