"""A gRPC interceptor for every call to Databricks: it adds current credentials and raises a named error if they are refused.

gRPC's call credentials would not do: PySpark sees their failure as UNAVAILABLE and retries for ten minutes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import grpc

from stock_lakehouse.engines.errors import CREDENTIALS, CredentialsError

REFUSED = {
    grpc.StatusCode.UNAUTHENTICATED: "the token has expired or was revoked",
    grpc.StatusCode.PERMISSION_DENIED: "this identity may not do that",
}


class Authenticated(
    grpc.UnaryUnaryClientInterceptor,  # type: ignore[misc]  # grpc has no types
    grpc.UnaryStreamClientInterceptor,  # type: ignore[misc]
    grpc.StreamUnaryClientInterceptor,  # type: ignore[misc]
):
    """Adds the headers that `credentials` returns to each call's metadata.

    Raises CredentialsError when the server refuses the call.
    """

    def __init__(self, credentials: Callable[[], Mapping[str, str]]) -> None:
        self._credentials = credentials

    def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        call = continuation(self._signed(details), request)
        _check(call)
        return call

    intercept_stream_unary = intercept_unary_unary

    def intercept_unary_stream(self, continuation: Any, details: Any, request: Any) -> Any:
        return _checked(continuation(self._signed(details), request))

    def _signed(self, details: Any) -> Any:
        headers = [(name.lower(), value) for name, value in self._credentials().items()]
        return details._replace(metadata=[*(details.metadata or ()), *headers])


def _checked(stream: Any) -> Iterator[Any]:
    try:
        yield from stream
    except grpc.RpcError:
        _check(stream)
        raise


def _check(call: Any) -> None:
    if (reason := REFUSED.get(call.code())) is not None:
        raise CredentialsError(f"Databricks refuses the call: {reason} ({call.details()}); {CREDENTIALS}")
