"""How routes page, answer, and describe their answers."""

from typing import Annotated, Any

from fastapi import Query
from pydantic import BaseModel
from starlette.responses import JSONResponse, Response

from libs.common.control.owner import Receipt
from services.policy.views.base import Deleted, Versioned

Limit = Annotated[int, Query(ge=1, le=500)]


def answers(model: type[BaseModel]) -> dict[str, Any]:
    """What OpenAPI says about a change that answers with `model`."""
    return {"response_model": model, "responses": {202: {"model": model}}}


def versioned(view: Versioned, status: int = 200) -> Response:
    """`view` with its version as entity tag."""
    return JSONResponse(view.model_dump(mode="json"), status, {"ETag": f'"{view.version}"'})


def deleted(receipt: Receipt) -> Response:
    return JSONResponse(Deleted(receipt=receipt).model_dump(mode="json"), receipt.status)
