// What a person sees and does.
"use strict";

const $ = (id) => document.getElementById(id);
const percent = (share) => `${(100 * share).toFixed(1)} %`;
/** A confidence: it is never shown as certain. */
const sure = (share) => (share >= 0.9995 ? "> 99.9 %" : share < 0.0005 ? "< 0.1 %" : percent(share));
const facts = JSON.parse($("bundle").textContent);
let network = null, turn = Promise.resolve();
const results = []; // of every picture so far: {source, top, rejected} or {source, error}

function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

function describe() {
  const { variant, classes, preprocess, reject_threshold } = facts, { accuracy } = variant;
  $("name").textContent = facts.name;
  const parts = [`${classes.length} classes`, `${preprocess.image_size}×${preprocess.image_size} px`,
    `${(variant.size_bytes / 1000).toLocaleString("en", { maximumFractionDigits: 1 })} kB`, variant.precision];
  if (accuracy) parts.splice(1, 0, `${percent(accuracy.top1)} accurate`);
  $("facts").textContent = parts.join(" · ");
  const rows = [
    ["classes", classes.slice(0, 40).join(", ") + (classes.length > 40 ? `, and ${classes.length - 40} more` : "")],
    ["accuracy", accuracy ? `${percent(accuracy.top1)} (95 %: ${percent(accuracy.low)} to ${percent(accuracy.high)}) of `
      + `${accuracy.n.toLocaleString("en")} test images` : "none recorded"],
    ["confidence", `calibrated by a temperature of ${facts.temperature.toPrecision(3)}`
      + (accuracy?.ece == null ? "" : `; calibration error ${accuracy.ece.toFixed(3)}`)],
    ["answers", reject_threshold === null ? "always one of the classes: this bundle has no threshold, so that a picture "
      + "unlike all of them gets a class too" : `none below a confidence of ${percent(reject_threshold)}`],
    ["trained on", facts.data || "not recorded"],
    ["cost", `${variant.params.toLocaleString("en")} parameters, ${variant.macs.toLocaleString("en")} MACs (counted)`],
    ["file", `${variant.name}, SHA-256 ${variant.sha256}`],
    ["runs in", `onnxruntime-web ${facts.ort_version}, WebAssembly, one thread`],
    ["made by", `flyweight ${facts.flyweight_version}`],
  ];
  $("card").append(...rows.flatMap(([name, text]) => [
    element("dt", { textContent: name }), element("dd", { textContent: text })]));
}

function complain(error) {
  const known = error instanceof Problem;
  $("problem").replaceChildren(
    element("p", {}, element("b", { textContent: known ? error.what : `this page failed: ${error.message || error}` })),
    element("p", { textContent: known ? `do: ${error.advice}` : "do: reload the page; if it happens again, report it" }),
    element("p", { textContent: `more: ${known ? error.more : "docs/serve.md#the-page"}`, className: "soft" }));
  $("problem").hidden = false;
}

/** Classify files one after another; the last one that can be read is shown large. */
function take(files) {
  const list = [...files];
  if (!list.length || !network) return turn;
  turn = turn.then(async () => {
    $("problem").hidden = true;
    let shown = null;
    for (const [i, file] of list.entries()) {
      if (list.length > 1) $("status").textContent = `picture ${i + 1} of ${list.length} …`;
      shown = (await classify(file)) || shown;
    }
    $("status").textContent = "";
    if (results.length > 1) listResults();
    if (shown) display(shown);
  }).catch(complain);
  return turn;
}

/** Return the result of a file that can be read, null of one that cannot; both are kept in `results`. */
async function classify(file) {
  const source = file.name || "pasted picture";
  try {
    const start = performance.now(), image = await decode(file, network.channels, facts.max_pixels);
    const decoded = performance.now(), planes = network.prepare(image), prepared = performance.now();
    const logits = await network.logits(network.tensor(planes)), done = performance.now();
    const spent = { decode: decoded - start, resize: prepared - decoded, model: done - prepared };
    results.push({ source, ...network.predict(logits), planes, spent, file, width: image.width, height: image.height });
    return results.at(-1);
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    results.push({ source, error: error.what });
    complain(error);
    return null;
  }
}

function display({ source, top, rejected, planes, spent, file, width, height }) {
  $("answer").hidden = false;
  const preview = $("preview");
  if (preview.src) URL.revokeObjectURL(preview.src);
  preview.parentElement.hidden = !file;
  if (file) preview.src = URL.createObjectURL(file);
  else preview.removeAttribute("src");
  $("source").textContent = file ? `${source}, ${width}×${height} px` : source;
  draw($("seen"), planes);
  $("seen-text").textContent = `what the network sees: ${network.size}×${network.size} px`;
  const verdict = $("verdict"), { confidence } = top[0];
  verdict.className = rejected ? "verdict rejected" : "verdict";
  verdict.replaceChildren(rejected ? "No answer" : top[0].class, element("small", {
    textContent: rejected
      ? `like none of the classes, or not clear enough: the best guess, ${top[0].class}, has ${percent(confidence)}, and `
        + `this bundle answers from ${percent(facts.reject_threshold)} on`
      : `${sure(confidence)} sure`,
  }));
  $("top").className = rejected ? "top rejected" : "top";
  $("top").replaceChildren(...top.map((row) => {
    const bar = element("i");
    bar.style.setProperty("--share", `${100 * row.confidence}%`);
    return element("li", {}, element("span", { textContent: row.class }),
      element("b", { textContent: sure(row.confidence) }), bar);
  }));
  const ms = (value) => `${value < 10 ? value.toFixed(1) : value.toFixed(0)} ms`;
  $("spent").textContent = spent ? `read ${ms(spent.decode)}, resize ${ms(spent.resize)}, model ${ms(spent.model)}: `
    + "one run of this picture; below is the measurement" : "";
}

function draw(canvas, planes) {
  const { size, channels } = network, image = new ImageData(size, size), area = size * size;
  for (let i = 0; i < area; i++) {
    for (let c = 0; c < 3; c++) image.data[4 * i + c] = planes[(channels >= 3 ? c : 0) * area + i];
    image.data[4 * i + 3] = channels === 4 ? planes[3 * area + i] : 255;
  }
  Object.assign(canvas, { width: size, height: size });
  canvas.classList.toggle("pixelated", size < 100);
  canvas.getContext("2d").putImageData(image, 0, 0);
}

function listResults() {
  $("many").hidden = false;
  $("many-title").textContent = `${results.length} pictures`;
  const rows = $("rows");
  for (let i = rows.children.length; i < results.length; i++) rows.prepend(rowOf(results[i]));
}

function rowOf(result) {
  const { source, error, top, rejected } = result;
  const row = element("tr", {}, element("td", { textContent: source, className: "name" }));
  if (error) {
    row.append(element("td", { textContent: "cannot be read" }), element("td"));
    return row;
  }
  row.append(element("td", { textContent: rejected ? "no answer" : top[0].class, className: rejected ? "rejected" : "" }),
    element("td", { textContent: sure(top[0].confidence), className: "n" }));
  row.dataset.i = "";
  row.onclick = () => display(result);
  return row;
}

async function offerSamples() {
  const { planes, logits } = await network.golden(), n = logits.length / facts.classes.length, each = planes.length / n;
  for (let i = 0; i < Math.min(n, 12); i++) {
    const own = planes.slice(i * each, (i + 1) * each), canvas = element("canvas");
    draw(canvas, own);
    const button = element("button", { title: `golden image ${i + 1}` }, canvas);
    button.setAttribute("aria-label", `golden image ${i + 1}`);
    button.onclick = () => {
      turn = turn.then(async () => {
        const found = network.predict(await network.logits(network.tensor(own)));
        display({ source: `golden image ${i + 1}`, ...found, planes: own });
      }).catch(complain);
    };
    $("sample-row").append(button);
  }
  $("samples").hidden = false;
}

async function measureHere() {
  $("measure").disabled = true;
  $("progress").hidden = false;
  try {
    await turn;
    const measured = await measure(network, (done) => { $("progress").value = done; });
    showMeasured(measured, await resultOf(network, measured));
  } catch (error) {
    complain(error);
  } finally {
    $("measure").disabled = false;
    $("progress").hidden = true;
    $("progress").value = 0;
  }
}

const CLOCKS = { model: "model only", preprocess_model: "resize + model", encoded: "from JPEG bytes" };

function showMeasured(measured, result) {
  const short = (ms) => `${Number(ms.toPrecision(3))} ms`;
  const cell = (found) => element("td", { className: "n", textContent: found ? short(found.ms) : "—" },
    found ? element("small", { textContent: `${short(found.low)} to ${short(found.high)}` }) : "");
  const rows = Object.entries(CLOCKS).map(([name, text]) => [text, summary(measured.rounds, name)]);
  $("clocks").replaceChildren(...rows.map(([text, of]) => element("tr", {},
    element("td", { textContent: text + (of.together > 1 ? ` (means of ${of.together})` : "") }),
    cell(of.p50), cell(of.p90), cell(of.p99), element("td", { className: "n", textContent: of.n }))));
  const { golden } = measured, model = rows[0][1], encoded = rows[2][1];
  const tile = (value, text) => element("div", { className: "tile" }, element("b", { textContent: value }),
    element("span", { textContent: text }));
  $("tiles").replaceChildren(
    tile(short(model.p50.ms), "model only, p50"), tile(short(encoded.p50.ms), "from JPEG bytes, p50"),
    tile(`${golden.same} of ${golden.n}`, "golden images with the recorded class"),
    tile(golden.max_error === null ? "not finite" : Number(golden.max_error.toPrecision(2)), "largest difference of a logit; "
      + `tolerance ${Number(golden.tolerance.toPrecision(2))}: ${golden.ok ? "agrees" : "DISAGREES"}`));
  const remarks = [];
  if (model.p90 && model.p90.ms > 2 * model.p50.ms) {
    remarks.push(`one run in ten took more than ${(model.p90.ms / model.p50.ms).toFixed(1)} times the median: something else `
      + "had the processor; close it and measure again");
  }
  if (result.models[0].problem) remarks.push(result.models[0].problem);
  if (model.together > 1) {
    remarks.push(`this browser's clock ticks every ${Number((measured.step * 1000).toPrecision(2))} µs, so that short runs are `
      + "timed several at a time: their mean says nothing of single slow runs, and only p50 is given");
  }
  if (!rows.every(([, of]) => of.steady)) remarks.push("the runs had not become steady when they were timed: measure again");
  $("remarks").replaceChildren(...remarks.map((textContent) => element("p", { textContent, className: "unverified" })));
  $("measured").hidden = false;
  const link = $("download");
  if (link.href) URL.revokeObjectURL(link.href);
  link.href = URL.createObjectURL(new Blob([JSON.stringify(result, null, 1)], { type: "application/json" }));
  link.download = `${facts.name}-${facts.variant.name}-measured.json`;
  link.hidden = false;
  window.flyweight.result = result;
}

function listen() {
  const drop = $("drop");
  for (const input of [$("file"), $("photo")]) {
    input.disabled = false;
    input.onchange = () => { take(input.files); input.value = ""; };
  }
  addEventListener("dragover", (event) => { event.preventDefault(); drop.classList.add("over"); });
  addEventListener("dragleave", (event) => { if (!event.relatedTarget) drop.classList.remove("over"); });
  addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    take(event.dataTransfer.files);
  });
  addEventListener("paste", (event) => take(event.clipboardData.files));
  $("measure").onclick = measureHere;
  $("measure").disabled = false;
}

async function start() {
  describe();
  const steps = [[globalThis.WebAssembly, "WebAssembly"], [globalThis.DecompressionStream, "DecompressionStream"]];
  const lacking = steps.filter(([has]) => !has).map(([, name]) => name);
  if (lacking.length) {
    throw new Problem(`this browser has no ${lacking.join(" and no ")}`, "use a browser of 2023 or later");
  }
  network = await Network.load(facts);
  if (!(await pixelsAreTrue())) {
    complain(new Problem("this browser changes the pixels that a page reads, against tracking: answers will be off",
      "allow this page to read canvases, or use another browser"));
  }
  listen();
  await offerSamples();
  $("status").textContent = "";
}

window.flyweight = { results, take, facts };
start().then(() => { document.documentElement.dataset.drawn = "yes"; }, (error) => {
  $("status").textContent = "";
  complain(error);
  document.documentElement.dataset.drawn = "failed";
});
