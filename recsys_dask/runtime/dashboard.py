"""Dask's dashboard, made when somebody first looks at it: until then nobody waits for bokeh's import, 0.4 s."""

from __future__ import annotations

from typing import Any


class LateDashboard:
    """Stands among the applications of a scheduler's web server, in the dashboard's place."""

    def __init__(self, scheduler: Any):
        self._scheduler = scheduler
        scheduler.http_application.add_application(self)

    def find_handler(self, request: Any, **more: Any) -> Any:
        """What answers a request that nothing else of the server does; tornado asks, in the scheduler's event loop."""
        from distributed.dashboard.scheduler import connect

        server = self._scheduler.http_application
        if self in server.applications:
            server.applications.remove(self)
            connect(server, self._scheduler.http_server, self._scheduler)
        return server.find_handler(request, **more)
