"""What a webhook says, and the headers that prove who says it."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from standardwebhooks import Webhook

from umrgen_api.render import render_status
from umrgen_core.clock import format_time
from umrgen_core.job_store import Standing
from umrgen_core.webhook_secrets import list_secrets
from umrgen_core.webhooks import Delivery, name_webhook


def render_body(delivery: Delivery, public_url: str) -> bytes:
    """The message, the same at every attempt: what happened, when, and the job's status."""
    job = delivery.job
    status = render_status(Standing(job))
    if public_url and "image_url" in status:
        status["image_url"] = f"{public_url}{status['image_url']}"
    message = {
        "type": f"job.{job.state}",
        "timestamp": format_time(job.finished_at_us or job.created_at_us),
        "data": status,
    }
    return json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode()


def sign(delivery: Delivery, body: bytes, master: bytes, now_us: int) -> dict[str, str]:
    """The headers of Standard Webhooks for one attempt."""
    name, moment = name_webhook(delivery.job.id), datetime.fromtimestamp(now_us // 1_000_000, UTC)
    secrets = list_secrets(master, delivery.session_id, delivery.secret_version, delivery.secret_rotated_at_us, now_us)
    return {
        "Content-Type": "application/json",
        "webhook-id": name,
        "webhook-timestamp": str(now_us // 1_000_000),
        "webhook-signature": " ".join(Webhook(secret).sign(name, moment, body.decode()) for secret in secrets),
    }
