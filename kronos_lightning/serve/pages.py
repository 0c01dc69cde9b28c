"""Pages for people: the dashboard, the reference of the endpoints, and the one-time entry of a key."""

import re
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

import jinja2
import plotly
from fastapi import Body, FastAPI, Request, Response
from fastapi.responses import FileResponse, HTMLResponse
from pydantic import Field
from starlette.middleware.gzip import GZipMiddleware

import kronos_lightning

from .access import COOKIE, Keys
from .errors import ServiceError
from .messages import Message

PLOTLY = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"
STATIC = {"dashboard.js": "text/javascript", "fan.js": "text/javascript", "live.js": "text/javascript",
          "paper.js": "text/javascript", "texts.js": "text/javascript",
          "style.css": "text/css", "plotly.css": "text/css", "icon.svg": "image/svg+xml"}  # fmt: skip
STYLE_ID = re.compile(r'getElementById\("([0-9a-f]{64})"\)')  # plotly writes no style whose element is there
CACHED = {"Cache-Control": "public, max-age=86400"}


class KeyEntry(Message):
    """Key that a person enters in the dashboard."""

    key: Annotated[str, Field(min_length=1, max_length=200)]


def add_pages(app: FastAPI, keys: Keys) -> None:
    """Add the pages to an application."""
    folder = Path(str(files("kronos_lightning.serve"))) / "dashboard"
    templates = jinja2.Environment(loader=jinja2.FileSystemLoader(folder), autoescape=True)
    styles = sorted(set(STYLE_ID.findall(PLOTLY.read_text(encoding="utf-8"))))
    app.add_middleware(GZipMiddleware, minimum_size=2000)

    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    async def dashboard(request: Request) -> HTMLResponse:
        version, allowed = kronos_lightning.__version__, not keys or keys.caller(dict(request.scope["headers"]))
        page = templates.get_template("page.html.jinja")
        return HTMLResponse(page.render(version=version, locked=not allowed, own_styles=styles))

    @app.get("/docs", response_class=HTMLResponse, include_in_schema=False)
    async def reference() -> HTMLResponse:
        return HTMLResponse(templates.get_template("reference.html.jinja").render(endpoints=_endpoints(app.openapi())))

    @app.post("/login", status_code=204, include_in_schema=False)
    async def login(request: Request, entry: Annotated[KeyEntry, Body()]) -> Response:
        name = keys.name_of(entry.key.encode())
        if name is None:
            raise ServiceError.of(401)
        response = Response(status_code=204)
        secure = request.url.scheme == "https"
        response.set_cookie(COOKIE, keys.token(name), httponly=True, samesite="strict", secure=secure, max_age=86400)
        return response

    @app.get("/static/plotly.js", include_in_schema=False)
    async def charts() -> FileResponse:
        return FileResponse(PLOTLY, media_type="text/javascript", headers=CACHED)

    @app.get("/static/{name}", include_in_schema=False)
    async def static(name: str) -> FileResponse:
        if name not in STATIC:
            raise ServiceError.of(404)
        return FileResponse(folder / name, media_type=STATIC[name], headers={"Cache-Control": "no-cache"})


def _endpoints(schema: dict[str, Any]) -> list[dict[str, Any]]:
    """List the endpoints of an OpenAPI schema for the reference page."""
    return [
        {
            "method": method.upper(),
            "path": path,
            "about": operation.get("description", ""),
            "parameters": operation.get("parameters", []),
            "codes": operation["responses"],
        }
        for path, operations in schema["paths"].items()
        for method, operation in operations.items()
    ]
