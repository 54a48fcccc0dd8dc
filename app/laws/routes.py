"""Laws: what can be fitted."""

from __future__ import annotations

from fastapi import APIRouter

from app.auth import Reading
from app.laws.schemas import LawDocument, LawsDocument
from app.schemas import problems
from isoloss.laws import LAWS

router = APIRouter(prefix="/v1/laws", tags=["laws"])


@router.get("", responses=problems(401, 403, 503))
def list_laws(access: Reading) -> LawsDocument:  # noqa: ARG001  (it checks the key)
    """List the laws that can be fitted: formula, parameters with units and bounds, and what a run must have."""
    return LawsDocument(items=[LawDocument.model_validate(law.describe()) for law in LAWS.values()])
