// The stage: one job, its progress as it comes, and its picture when it is there.

import { call, fetchPart } from "./calls.js";
import { announce, localiseTimes } from "./console.js";
import { followJob } from "./events.js";

const stage = document.querySelector("[data-stage]");
let following = null;

/** Put a job on the stage and follow it to its end. */
export async function showJob(jobId) {
  await renderJob(jobId);
  followShown();
}

function followShown() {
  following?.abort();
  const article = stage.querySelector("[data-job]");
  if (!article || !["queued", "running"].includes(article.dataset.state)) return;
  following = new AbortController();
  follow(article.dataset.job, following.signal);
}

async function follow(jobId, signal) {
  for await (const { kind, status } of followJob(jobId, signal)) {
    if (signal.aborted) return;
    const shown = stage.querySelector("[data-job]");
    if (kind === "progress" && status.state === "running" && shown?.dataset.state === "running") {
      showProgress(shown, status);
    } else {
      await renderJob(jobId).catch(() => {});
      say(status);
    }
  }
}

function showProgress(article, status) {
  const { step, steps } = status.progress;
  const bar = article.querySelector("progress");
  bar.max = steps;
  bar.value = step;
  const rest = status.eta_seconds == null ? "" : `, done in about ${Math.ceil(status.eta_seconds)} s`;
  article.querySelector(".progress-text").textContent = `Step ${step} of ${steps}${rest}.`;
  if (step === Math.ceil(steps / 2)) announce(`Step ${step} of ${steps}.`);
}

function say(status) {
  const place = `Waiting at place ${status.queue_position} in the queue.`;
  announce({ queued: place, running: "Being painted.", completed: "Your picture is ready.", failed: `It failed: ${status.error}`, cancelled: "It was cancelled." }[status.state]);
}

async function renderJob(jobId) {
  const part = await fetchPart(`/console/jobs/${jobId}?part=1`);
  const hadFocus = stage.contains(document.activeElement);
  stage.replaceChildren(part);
  localiseTimes(stage);
  if (hadFocus) stage.querySelector(".actions a, .actions button")?.focus();
  stage.dispatchEvent(new CustomEvent("job-shown", { bubbles: true }));
}

stage.addEventListener("submit", async (event) => {
  const form = event.target.closest("[data-cancel]");
  if (!form) return;
  event.preventDefault();
  const button = form.querySelector("button");
  if (button.ariaDisabled === "true") return; // not disabled: that would take the focus away
  button.ariaDisabled = "true";
  button.textContent = "Cancelling…";
  try {
    await call("DELETE", `/console/api/jobs/${stage.querySelector("[data-job]").dataset.job}`);
  } catch (error) {
    button.ariaDisabled = null;
    button.textContent = "Cancel";
    announce(error.message);
  }
});

followShown();
