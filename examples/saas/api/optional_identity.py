"""OPTIONAL: with `optional_operations` the only module of this backend that knows otel-shim.

Nothing here is needed for identity on the spans and logs of a request with a signed-in user: the
shim finds `current_user` by itself. This module is for what a framework cannot know: who signs in
during a login, which organisation an API key acts for, which audit record belongs to the work, a job
that walks over organisations, and the product's own names for operations.

The backend runs without the package `otel_shim` too: every function below then does nothing. Only
its absence is tolerated; a package that is there but broken fails the start, as any import would.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

try:
    import otel_shim
except ModuleNotFoundError as missing:
    if missing.name != "otel_shim":
        raise
    INSTALLED = False
else:
    INSTALLED = True

AnyFunction = TypeVar("AnyFunction", bound=Callable[..., Any])


def bind_user(org_id: str, user_id: str, role: str, plan: str) -> None:
    """Say who signed in, once the password matched: no dependency knows it during a login."""
    if INSTALLED:
        otel_shim.bind(
            org_id=org_id, user_id=user_id, actor_type="user", actor_role=role, plan=plan
        )


def bind_api_key(org_id: str, key_id: str) -> None:
    """Say for which organisation a machine acts."""
    if INSTALLED:
        otel_shim.bind(org_id=org_id, user_id=key_id, actor_type="api_key", legal_basis="contract")


def bind_audited(record_id: str, activity: str, legal_basis: str, retention: str) -> None:
    """Name the audit record of this work, and what of the GDPR applies to it."""
    if INSTALLED:
        otel_shim.bind(
            audit_record_id=record_id,
            processing_activity_id=activity,
            legal_basis=legal_basis,
            retention_class=retention,
        )


def acting_for(org_id: str, **references: str) -> AbstractContextManager[object]:
    """Everything inside the block belongs to this organisation; `references` as `bind_audited` has them."""
    if INSTALLED:
        return otel_shim.identity(org_id=org_id, actor_type="job", **references)
    return nullcontext()


def operation_block(name: str) -> AbstractContextManager[object]:
    """Name the work inside the block, as `billing.rollup`."""
    return otel_shim.operation(name) if INSTALLED else nullcontext()


def named_operation(name: str) -> Callable[[AnyFunction], AnyFunction]:
    """Name the work of a function, as `planning.publish`."""
    return otel_shim.operation(name) if INSTALLED else _unchanged


def who() -> str:
    """The identity in force, for a message to support; never personal data in clear."""
    return str(otel_shim.current_identity()) if INSTALLED else "unknown"


def _unchanged(function: AnyFunction) -> AnyFunction:
    return function
