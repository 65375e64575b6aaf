"""The interface as a document: `/openapi.json` and the page at `/docs` are made from it."""

from api.openapi.admin_routes import ADMIN_ROUTES
from api.openapi.client_routes import CLIENT_ROUTES
from api.openapi.document import document
from api.openapi.routes import Parameter, Route

__all__ = ["ADMIN_ROUTES", "CLIENT_ROUTES", "Parameter", "Route", "document"]
