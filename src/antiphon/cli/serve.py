"""`antiphon serve`: models behind an HTTP server."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from antiphon.serving.settings import Settings


def serve(
    *models: str,
    host: Annotated[
        str, Parameter(help="the address to listen on; 0.0.0.0 is every one of this machine")
    ] = "127.0.0.1",
    port: Annotated[int, Parameter(help="the port to listen on")] = 8000,
    settings: Annotated[Settings, Parameter(name="*")] = Settings(),  # noqa: B008
) -> int:
    """Serve trained models over HTTP: a web page, JSON, plain text, streams, LibreTranslate's interface, metrics.

    SIGTERM ends it once all accepted requests are answered, a second one at once; SIGHUP loads the models again, as
    happens by itself when one changes on disk. The log goes to standard error, a JSON object a line.

    Parameters
    ----------
    models
        Bundles or runs, as PATH or NAME=PATH; several with commas between them answer together, as an ensemble. The
        first answers where a request names none.
    """
    from antiphon.core.errors import require

    try:
        from antiphon.serving.server import serve as run
    except ModuleNotFoundError as error:
        if error.name not in ("fastapi", "uvicorn", "starlette", "prometheus_client", "multipart", "python_multipart"):
            raise
        raise require("serve", str(error.name).replace("_", "-")) from None
    return run(models, host, port, settings)
