"""The interface as a document: `/openapi.json` and the page at `/docs` are made from it."""

from api.web.openapi.admin_routes import ADMIN_ROUTES
from api.web.openapi.client_routes import CLIENT_ROUTES
from api.web.openapi.document import document
from api.web.openapi.routes import Parameter, Route

__all__ = ["ADMIN_ROUTES", "CLIENT_ROUTES", "Parameter", "Route", "document"]
