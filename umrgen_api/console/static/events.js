// A job's changes as they come: server-sent events read by fetch, resumed where they broke off.

import { ask, pause } from "./calls.js";

const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 10000;

/** Yields {kind, status} until the job has ended or is gone. */
export async function* followJob(jobId, signal) {
  let last = "";
  let wait = FIRST_PAUSE_MS;
  while (!signal.aborted) {
    try {
      const headers = last ? { "Last-Event-ID": last } : {};
      const response = await ask("GET", `/console/api/events/${jobId}`, { headers, signal });
      if (response.status === 204 || response.status === 404 || response.status === 403) return;
      if (response.ok) {
        for await (const event of readEvents(response.body)) {
          wait = FIRST_PAUSE_MS;
          last = event.id || last;
          yield { kind: event.kind, status: JSON.parse(event.data) };
          if (event.kind === "done") return;
        }
      }
    } catch (error) {
      if (signal.aborted || error.status === 401) return;
    }
    await pause(wait);
    wait = Math.min(wait * 2, LONGEST_PAUSE_MS);
  }
}

async function* readEvents(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    text += value;
    let end;
    while ((end = text.indexOf("\n\n")) >= 0) {
      const event = parseEvent(text.slice(0, end));
      text = text.slice(end + 2);
      if (event.data) yield event;
    }
  }
}

function parseEvent(block) {
  const event = { id: "", kind: "", data: "" };
  for (const line of block.split("\n")) {
    const colon = line.indexOf(":");
    const name = { id: "id", event: "kind", data: "data" }[line.slice(0, colon)];
    if (name) event[name] = line.slice(colon + 1).replace(/^ /, "");
  }
  return event;
}
