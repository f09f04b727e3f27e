"""One job's server-sent events across lost connections, without any input or output."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

from umrgen_client.calls import API, HASTY_PAUSE_S
from umrgen_client.errors import BadAnswer, UmrgenError
from umrgen_client.exchange import Request, Response, Retry, read_refusal


class Feed:
    """Where the stream stands, and when to take it up again."""

    def __init__(self, job_id: str, last_event_id: int, retry: Retry) -> None:
        self.path = f"{API}/events/{quote(job_id, safe='')}"
        self.last_event_id = last_event_id
        self.ended = False
        self._retry = retry
        self._request = Request("GET", self.path)
        self._attempt = 0
        self._paused_s = 0.0

    def take(self, kind: str, event_id: str, data: str) -> tuple[int, dict[str, Any]]:
        """Id and status of an event that came. Raises BadAnswer for one that is none of the service's."""
        try:
            status = json.loads(data)
            self.last_event_id = int(event_id)
        except ValueError:
            raise BadAnswer("This address sends events, but not as UMRGEN does; look at the URL.") from None
        self._attempt, self._paused_s = 0, 0.0
        self.ended = kind == "done"
        return self.last_event_id, status

    def answer(self, response: Response) -> float:
        """Seconds before the next try after an answer that is no stream. Raises Refused."""
        if response.status == 204:
            self.ended = True
            return 0.0
        return self.lose(read_refusal(response))

    def rest(self) -> float:
        """Seconds before the next try after a stream that came to its end: none after the job's own."""
        return 0.0 if self.ended else HASTY_PAUSE_S

    def lose(self, error: UmrgenError) -> float:
        """Seconds before the next try after `error`; raises it when it is not to be tried again."""
        self._attempt += 1
        pause_s = self._retry.find_pause(error, self._request, self._attempt, self._paused_s)
        if pause_s is None:
            raise error
        self._paused_s += pause_s
        return pause_s
