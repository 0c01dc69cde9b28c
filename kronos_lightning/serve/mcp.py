"""Read-only tools for language models over the Model Context Protocol: clients of the HTTP API, nothing more.

KRONOS_URL=http://127.0.0.1:8000 python -m kronos_lightning.serve.mcp
"""

import os
from typing import Annotated, Any

import httpx
from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import ToolAnnotations
from pydantic import Field

READS = ToolAnnotations(read_only_hint=True, destructive_hint=False, open_world_hint=False)
ABOUT = (
    "Forecasts of a fine-tuned Kronos. Quote the notices and the verdict with every number: a forecast without them "
    "misleads. confidence is null if no calibration applies. Nothing here is investment advice, and no tool trades."
)
LEFT_OUT = ("quantiles", "thresholds", "validity", "candles_sha256", "calibration")
Symbol = Annotated[str, Field(pattern=r"^[A-Z0-9]{2,20}$")]  # it becomes a part of the path


def build_server(client: httpx.AsyncClient) -> MCPServer:
    """Build the server whose tools ask a service through a client."""
    server: MCPServer = MCPServer("kronos", instructions=ABOUT)

    @server.tool(annotations=READS)
    async def latest_forecast(symbol: Symbol) -> dict[str, Any]:
        """Forecast a market after the newest candles that the service has."""
        return _short(await _asked(client, "POST", f"/v1/{symbol}/predict", {}))

    @server.tool(annotations=READS)
    async def forecast_candles(
        symbol: Symbol, candles: list[dict[str, Any]], interval: str | None = None
    ) -> dict[str, Any]:
        """Forecast a market after the given finished candles, oldest first.

        Each candle has timestamp (with its zone), open, high, low, close, volume and amount (the quote volume).
        """
        body = {"candles": candles} | ({} if interval is None else {"interval": interval})
        return _short(await _asked(client, "POST", f"/v1/{symbol}/predict", body))

    @server.tool(annotations=READS)
    async def track_record() -> dict[str, Any]:
        """Tell how good the model was in its evaluation: verdict, notices, range, calibration."""
        model = await _asked(client, "GET", "/v1/model")
        return {"id": model["id"], "strategy": model["strategy"], **model["decision"]["evaluation"]} | {
            "symbol": model["decision"]["symbol"],
            "interval": model["decision"]["interval"],
            "calibrated": model["calibration"] is not None,
        }

    return server


async def _asked(client: httpx.AsyncClient, method: str, path: str, body: Any = None) -> dict[str, Any]:
    """Return the answer of the service; its error in words if it refuses."""
    response = await client.request(method, path, json=body)
    content: dict[str, Any] = response.json()
    if response.is_error:
        error = content["error"]
        raise ToolError(f"{error['code']}: {error['message']}. {error['hint']}")
    return content


def _short(answer: dict[str, Any]) -> dict[str, Any]:
    """Return an answer without the numbers of every step, except the 90 % interval at the horizon."""
    interval = {level: answer["quantiles"][level][-1] for level in ("0.05", "0.95")}
    return {name: value for name, value in answer.items() if name not in LEFT_OUT} | {"interval_90": interval}


def main() -> None:
    """Serve the tools on standard input and output."""
    key = os.environ.get("KRONOS_API_KEY")
    url = os.environ.get("KRONOS_URL", "http://127.0.0.1:8000")
    headers = {} if key is None else {"X-API-Key": key}
    build_server(httpx.AsyncClient(base_url=url, headers=headers, timeout=60)).run("stdio")


if __name__ == "__main__":
    main()
