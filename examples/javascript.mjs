// From a photo and a prompt to a PNG with Node's own fetch (Node 18 or newer), nothing to install:
//   UMRGEN_URL=… UMRGEN_API_KEY=… node javascript.mjs photo.jpg picture.png
import { randomUUID } from "node:crypto";
import { readFile, writeFile } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";

const { UMRGEN_URL, UMRGEN_API_KEY } = process.env;
const [photo, picture] = process.argv.slice(2);

async function call(path, options = {}) {
  for (let attempt = 1; ; attempt++) {
    const headers = { Authorization: `Bearer ${UMRGEN_API_KEY}`, ...options.headers };
    const response = await fetch(UMRGEN_URL + path, { ...options, headers });
    if (response.ok) return response;
    const { code, message, retry_after } = await response.json();
    // What will pass says when to come back: too many jobs or requests, a full queue.
    if (retry_after === undefined || attempt === 5) throw new Error(`${code}: ${message}`);
    await sleep(retry_after * 1000);
  }
}

const form = new FormData();
form.append("file", new Blob([await readFile(photo)]), "photo");
const reference = await (await call("/api/v1/upload-reference", { method: "POST", body: form })).json();

const submitted = await call("/api/v1/generate", {
  method: "POST",
  headers: { "Content-Type": "application/json", "Idempotency-Key": randomUUID() },
  body: JSON.stringify({
    prompt: "a circle in the colour of the reference",
    reference_images: [reference.filename],
    width: 256,
    height: 256,
  }),
});
const { job_id } = await submitted.json();
console.log(`accepted: ${job_id}`);

let status;
do {
  status = await (await call(`/api/v1/status/${job_id}?wait=30&until=done`)).json();
} while (status.state === "queued" || status.state === "running");
if (status.state !== "completed") throw new Error(`the job ${status.state}: ${status.error ?? ""}`);

const png = await call(status.image_url);
await writeFile(picture, Buffer.from(await png.arrayBuffer()));
console.log(`saved: ${picture}`);
