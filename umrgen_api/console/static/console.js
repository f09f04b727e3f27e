// Every page: times in the reader's own zone, and parts that are fetched anew every few seconds.

import { fetchPart, pause } from "./calls.js";

const REFRESH_MS = 4000;
const STYLE = { dateStyle: "medium", timeStyle: "short" };

export function localiseTimes(root) {
  for (const time of root.querySelectorAll("time[datetime]")) {
    const moment = new Date(time.dateTime);
    if (!Number.isNaN(moment.valueOf())) time.textContent = moment.toLocaleString([], STYLE);
  }
}

/** Say it to who does not see it. */
export function announce(text) {
  const line = document.getElementById("announce");
  if (line.textContent !== text) line.textContent = text;
}

async function keepFresh(part) {
  for (;;) {
    await pause(REFRESH_MS);
    // Nothing is taken from under the fingers of who is in it, and an unseen page asks for nothing.
    if (document.hidden || part.contains(document.activeElement) || part.querySelector("details[open]")) continue;
    try {
      part.replaceChildren(await fetchPart(part.dataset.refresh));
      localiseTimes(part);
    } catch {
      // The next round tries again.
    }
  }
}

localiseTimes(document);
for (const part of document.querySelectorAll("[data-refresh]")) keepFresh(part);
