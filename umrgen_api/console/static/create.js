// The form: sent as JSON, its problems shown at their fields, its job followed beside it.

import { call } from "./calls.js";
import { announce } from "./console.js";
import { showJob } from "./follow.js";
import { listReferences, startReferences } from "./references.js";
import { readModel, startSizes } from "./sizes.js";

const FIELDS = ["prompt", "negative", "reference_images", "model", "width", "height", "steps", "seed"];
const TYPED = FIELDS.filter((name) => name !== "reference_images");
const form = document.getElementById("create");
const button = document.getElementById("submit");
const formProblem = document.getElementById("form-problem");
const KEPT = "umrgen-typed";
const agent = document.querySelector(".agent").textContent;
let submission = null;

function showProblem(field, text) {
  const line = document.getElementById(`${field}-problem`);
  line.textContent = text;
  line.hidden = !text;
  const control = document.getElementById(field === "reference_images" ? "files" : field);
  if (text) control.setAttribute("aria-invalid", "true");
  else control.removeAttribute("aria-invalid");
}

function clearProblems() {
  formProblem.hidden = true;
  for (const field of FIELDS) showProblem(field, "");
}

async function readBody() {
  const text = (name) => form.elements[name].value.trim();
  const body = { prompt: text("prompt"), model: text("model"), reference_images: await listReferences() };
  if (readModel().negative && text("negative")) body.negative = text("negative");
  for (const name of ["width", "height", "steps", "seed"]) {
    const field = form.elements[name];
    if (field.validity.badInput) body[name] = "";
    else if (text(name)) body[name] = Number(text(name));
  }
  return body;
}

/** The same press of the button never makes two jobs, however often it has to be sent. */
function nameSubmission(body) {
  const text = JSON.stringify(body);
  if (submission?.text !== text) {
    const bytes = crypto.getRandomValues(new Uint8Array(16));
    submission = { text, key: Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("") };
  }
  return submission;
}

function showRefusal(error) {
  const { code, job_id: jobId, retry_after: wait, errors = [], field, filename } = error.body;
  const wrong = new Set();
  const at = (name, text) => { showProblem(name, text); wrong.add(name); };
  for (const one of errors) {
    const name = one.field.split("[")[0];
    if (FIELDS.includes(name)) at(name, `This ${one.problem}.`);
  }
  if (code === "safety_violation" && FIELDS.includes(field)) at(field, error.message);
  if (code === "reference_not_found") at("reference_images", `A reference picture is no longer kept${filename ? "; remove it and add it again" : ""}.`);
  const first = FIELDS.find((name) => wrong.has(name));
  if (first) {
    document.getElementById(first === "reference_images" ? "files" : first).focus();
    announce("Some of it needs another look.");
    return;
  }
  formProblem.textContent = code === "rate_limit" ? `You have asked for a lot within a minute. Try again in ${Math.ceil(wait)} s.` : error.message;
  if (code === "concurrent_limit" && jobId) {
    formProblem.textContent = "You have as many pictures under way as you may. ";
    const link = document.createElement("a");
    link.href = `/console/jobs/${jobId}`;
    link.textContent = "Look at the one that is under way.";
    formProblem.append(link);
  }
  formProblem.hidden = false;
}

/** What was typed outlasts a session that ends in between: in this tab, for this agent, until it is shown again. */
function keepTyped() {
  const typed = TYPED.map((name) => [name, form.elements[name].value]);
  sessionStorage.setItem(KEPT, JSON.stringify({ agent, typed }));
}

function showKept() {
  const kept = JSON.parse(sessionStorage.getItem(KEPT));
  sessionStorage.removeItem(KEPT);
  if (kept?.agent !== agent || form.elements.prompt.value) return;
  for (const [name, value] of kept.typed) form.elements[name].value = value;
  if (!form.elements.model.value) form.elements.model.selectedIndex = 0; // it is served no more
  announce("What you had typed is here again.");
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  clearProblems();
  button.disabled = true;
  button.textContent = "Sending…";
  try {
    const { text, key } = nameSubmission(await readBody());
    const headers = { "Content-Type": "application/json", "Idempotency-Key": key };
    const answer = await call("POST", "/console/api/generate", { headers, body: text });
    submission = null;
    announce("Accepted.");
    await showJob(answer.job_id);
  } catch (error) {
    if (error.body) showRefusal(error);
    else throw error;
  } finally {
    button.disabled = false;
    button.textContent = "Create";
  }
});

form.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit(button);
});

document.addEventListener("signed-out", keepTyped);
form.classList.add("scripted");
showKept();
startSizes();
startReferences(showProblem);
if (!form.elements.prompt.value) form.elements.prompt.focus({ preventScroll: true });
