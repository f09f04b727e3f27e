// Model, size, steps and seed: what goes with what.

const $ = (id) => document.getElementById(id);

/** What the chosen model takes, as numbers and flags. */
export function readModel() {
  const data = $("model").selectedOptions[0].dataset;
  return {
    steps: data.steps,
    minSteps: data.minSteps,
    maxSteps: data.maxSteps,
    minReferences: Number(data.minReferences),
    maxReferences: Number(data.maxReferences),
    maxPixels: Number(data.maxPixels),
    negative: data.negative === "yes",
  };
}

function fitToModel() {
  const model = readModel();
  $("steps").min = model.minSteps;
  $("steps").max = model.maxSteps;
  $("steps").placeholder = model.steps;
  $("negative-row").hidden = !model.negative;
  for (const option of $("preset").options) {
    const [width, height] = option.value.split("x").map(Number);
    option.disabled = width * height > model.maxPixels;
  }
  document.dispatchEvent(new CustomEvent("model-chosen"));
}

function nameSize() {
  const size = `${$("width").value}x${$("height").value}`;
  $("preset").value = [...$("preset").options].some((option) => option.value === size) ? size : "";
}

function takePreset() {
  if ($("preset").value) [$("width").value, $("height").value] = $("preset").value.split("x");
  else $("width").focus();
}

function offerSeed() {
  const seed = document.querySelector("[data-stage] [data-job]")?.dataset.seed;
  $("seed-again").hidden = seed === undefined;
}

export function startSizes() {
  $("preset-row").hidden = false;
  $("seed-random").hidden = false;
  $("model").addEventListener("change", fitToModel);
  $("preset").addEventListener("change", takePreset);
  $("width").addEventListener("input", nameSize);
  $("height").addEventListener("input", nameSize);
  $("seed-random").addEventListener("click", () => { $("seed").value = ""; $("seed").focus(); });
  $("seed-again").addEventListener("click", () => {
    $("seed").value = document.querySelector("[data-stage] [data-job]").dataset.seed;
    $("seed").focus();
  });
  document.addEventListener("job-shown", offerSeed);
  fitToModel();
  nameSize();
  offerSeed();
}
