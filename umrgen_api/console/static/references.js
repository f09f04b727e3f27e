// The pictures to paint from: chosen, dropped or pasted, shown at once, put in order, taken away.

import { call, Refusal } from "./calls.js";
import { announce } from "./console.js";
import { readModel } from "./sizes.js";

const KINDS = ["image/png", "image/jpeg", "image/webp"];
const NOT_ARRIVED = "Nothing was sent, since a picture did not arrive. Add it again, or create without it.";
const MAX_BYTES = 10 * 1024 * 1024;
const list = document.getElementById("chosen");
const area = document.getElementById("images");
const input = document.getElementById("files");
const kept = document.getElementById("kept");
const uploads = new Set();
let tell = () => {};

/** Names in order, once everything has arrived. Throws Refusal when a picture does not: nobody asked for less. */
export async function listReferences() {
  while (uploads.size) {
    if ((await Promise.all(uploads)).includes(false)) throw new Refusal(0, { message: NOT_ARRIVED });
  }
  return [...list.children].map((item) => item.dataset.name);
}

export function startReferences(showProblem) {
  tell = (text) => showProblem("reference_images", text);
  for (const item of list.children) dress(item);
  input.addEventListener("change", () => { add(input.files); input.value = ""; });
  document.addEventListener("dragover", (event) => { event.preventDefault(); area.classList.add("over"); });
  document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) area.classList.remove("over"); });
  document.addEventListener("drop", (event) => {
    event.preventDefault(); // else the browser would leave the page for the picture
    area.classList.remove("over");
    add(event.dataTransfer.files);
  });
  document.addEventListener("paste", (event) => {
    const { files, types } = event.clipboardData;
    // Office programs put a picture of the text beside it.
    if (event.target.closest("textarea, input") && types.includes("text/plain")) return;
    if (files.length) add(files);
  });
  kept?.addEventListener("change", (event) => toggleKept(event.target));
  for (const item of kept?.children ?? []) offerDeletion(item);
  document.addEventListener("model-chosen", sayLimit);
  tick();
  sayLimit();
}

function add(files) {
  if (input.disabled) return tell("Your key may not add pictures: it lacks the scope “upload”.");
  tell("");
  for (const file of files) {
    if (!KINDS.includes(file.type)) tell(`${file.name} is no PNG, JPEG or WebP.`);
    else if (file.size > MAX_BYTES) tell(`${file.name} has more than 10 MB. Scale it down first.`);
    else if (hasRoom()) upload(file);
  }
}

function hasRoom() {
  const most = readModel().maxReferences;
  if (list.children.length < most) return true;
  tell(most ? `This model takes at most ${most} reference pictures.` : "This model takes no reference pictures.");
  return false;
}

function upload(file) {
  const src = URL.createObjectURL(file);
  const item = append("", src);
  item.classList.add("busy");
  const body = new FormData();
  body.append("file", file);
  const arriving = call("POST", "/console/api/upload-reference", { body }).then(
    (reference) => {
      item.dataset.name = reference.filename;
      item.classList.remove("busy");
      announce(`${file.name} was added.`);
      return true;
    },
    (error) => {
      if (!item.isConnected) return true; // taken away meanwhile: nobody misses it
      remove(item);
      tell(`${file.name}: ${error.message}`);
      return false;
    },
  );
  uploads.add(arriving);
  arriving.finally(() => { uploads.delete(arriving); });
}

function append(name, src) {
  const item = document.createElement("li");
  const image = document.createElement("img");
  item.dataset.name = name;
  image.src = src;
  item.append(image);
  list.append(item);
  dress(item);
  return item;
}

/** Give a picture its buttons. */
function dress(item) {
  item.querySelector("input")?.remove(); // what a browser without scripts would send
  const tools = document.createElement("div");
  tools.className = "tools";
  tools.append(
    tool("←", "earlier", () => item.previousElementSibling?.before(item)),
    tool("→", "later", () => item.nextElementSibling?.after(item)),
    tool("×", "remove", () => remove(item)),
  );
  item.append(tools);
  number();
}

function tool(sign, kind, act) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = sign;
  button.dataset.kind = kind;
  button.addEventListener("click", () => {
    act();
    number();
    if (button.isConnected) button.focus();
    else (list.querySelector(`[data-kind="${kind}"]`) ?? input).focus();
  });
  return button;
}

function remove(item) {
  item.remove();
  const image = item.querySelector("img");
  if (image.src.startsWith("blob:")) URL.revokeObjectURL(image.src);
  tick();
  number();
}

function number() {
  const says = { earlier: "Move reference # earlier", later: "Move reference # later", remove: "Remove reference #" };
  [...list.children].forEach((item, place) => {
    item.querySelector("img").alt = `Reference ${place + 1}`;
    for (const button of item.querySelectorAll("button")) {
      button.setAttribute("aria-label", says[button.dataset.kind].replace("#", place + 1));
      button.title = button.getAttribute("aria-label");
    }
  });
}

function toggleKept(box) {
  const name = box.value;
  if (!box.checked) {
    for (const item of [...list.children]) if (item.dataset.name === name) item.remove();
  } else if (hasRoom()) {
    append(name, box.closest("li").querySelector("img").src);
  } else {
    box.checked = false;
  }
  number();
}

function offerDeletion(item) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = "Delete";
  button.setAttribute("aria-label", `Delete ${item.querySelector("img").alt.toLowerCase()} for good`);
  button.addEventListener("click", async () => {
    try {
      await call("DELETE", `/console/api/references/${item.dataset.name}`);
    } catch (error) {
      tell(error.message);
      return;
    }
    for (const chosen of [...list.children]) if (chosen.dataset.name === item.dataset.name) remove(chosen);
    const next = (item.nextElementSibling ?? item.previousElementSibling)?.querySelector("button") ?? input;
    item.remove();
    next.focus();
    announce("The picture was deleted.");
  });
  const tools = document.createElement("div");
  tools.className = "tools";
  tools.append(button);
  item.append(tools);
}

/** Earlier pictures are ticked when they are chosen. */
function tick() {
  const names = new Set([...list.children].map((item) => item.dataset.name));
  for (const box of kept?.querySelectorAll("input") ?? []) box.checked = names.has(box.value);
}

function sayLimit() {
  const { minReferences, maxReferences } = readModel();
  const least = minReferences ? `, at least ${minReferences}` : "";
  const hint = `Pictures to paint from, in this order, up to ${maxReferences}${least}. Drop, paste or choose PNG, JPEG or WebP of up to 10 MB.`;
  document.getElementById("images-hint").textContent = maxReferences ? hint : "This model takes no reference pictures.";
  document.getElementById("drop").hidden = !maxReferences;
}
