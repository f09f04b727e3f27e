// Every page: times in the reader's own zone, and parts that are fetched anew every few seconds.

import { fetchPart, pause } from "./calls.js";

const REFRESH_MS = 4000;
const CONTROLS = "a, button, input, select, summary, textarea";
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

/** New content, for which nobody loses the table that is focused, or the place that it was scrolled to. */
function replace(part, content) {
  const listTables = () => [...part.querySelectorAll("[tabindex]")];
  const before = listTables().map((table) => ({ left: table.scrollLeft, focused: table === document.activeElement }));
  part.replaceChildren(content);
  listTables().forEach((table, place) => {
    if (before[place]?.focused) table.focus({ preventScroll: true });
    table.scrollLeft = before[place]?.left ?? 0;
  });
}

const isInUse = (part) => part.contains(document.activeElement) && document.activeElement.matches(CONTROLS);

async function keepFresh(part) {
  for (;;) {
    await pause(REFRESH_MS);
    // Nothing is taken from under the fingers of who is in it, and an unseen page asks for nothing.
    if (document.hidden || isInUse(part) || part.querySelector("details[open]")) continue;
    try {
      replace(part, await fetchPart(part.dataset.refresh));
      localiseTimes(part);
    } catch {
      // The next round tries again.
    }
  }
}

localiseTimes(document);
for (const part of document.querySelectorAll("[data-refresh]")) keepFresh(part);
