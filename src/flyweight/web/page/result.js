// What this device measured, as `flyweight device add` reads it (docs/schemas), sealed against later changes.
"use strict";

/** Return the result of `measure` as plain values with their hash. */
async function resultOf(network, measured) {
  const { facts } = network, { rounds, golden } = measured, { same, ...agreement } = golden;
  const runs = (name) => rounds.map((round) => {
    const { together, ...run } = round[name];
    return run;
  });
  const { name, sha256, size_bytes, format, precision, params, macs } = facts.variant;
  const model = {
    name, kind: "variant", sha256, size_bytes, format, precision, backend: "onnxruntime-web", threads: 1,
    candidate: null, params, macs, golden: agreement,
    clocks: { model: runs("model"), preprocess_model: runs("preprocess_model"), encoded: runs("encoded") },
    again: runs("again"),
    enough: FULL_N,
    memory: null, problem: problemOf(measured),
  };
  return seal({
    result_version: 1, made_by: "web", flyweight_version: facts.flyweight_version, device: null,
    bundle: { name: facts.name, sha256: facts.bundle_sha256 },
    conditions: await conditions(facts, measured.step), models: [model],
  });
}

/** Return why these times are of no use, or null. */
function problemOf({ hidden, golden }) {
  if (!golden.ok) {
    return `the largest difference of a golden logit is ${golden.max_error ?? "not finite"}, the tolerance `
      + `${golden.tolerance}, in this browser`;
  }
  return hidden ? "the page was hidden while it was measured" : null;
}

async function conditions(facts, step) {
  const told = (await navigator.userAgentData?.getHighEntropyValues(["architecture", "model", "platformVersion"])) || {};
  const state = { governor: null, frequency_mhz: null, max_frequency_mhz: null, temperature_c: null, throttled: null };
  return {
    cpu: told.architecture ? `${told.architecture}, model not told by the browser` : "not told by the browser",
    cores: navigator.hardwareConcurrency || 1,
    os: told.platform ? `${told.platform} ${told.platformVersion}`.trim() : navigator.platform || "not told by the browser",
    versions: { "onnxruntime-web": facts.ort_version },
    date: new Date().toISOString().replace(/\.\d+Z$/, "+00:00"),
    command: "the page of flyweight web", machine: told.architecture || "", model: told.model || null,
    memory_bytes: null, load_average: null, python: null, browser: navigator.userAgent,
    clock_resolution_ns: Math.round(step * 1e6), before: state, after: state,
  };
}

/** Return the value with the SHA-256 of its canonical JSON (RFC 8785) under `sha256`. */
function seal(value) {
  return { ...value, sha256: sha256(new TextEncoder().encode(canonical(value))) };
}

function canonical(value) {
  if (Array.isArray(value)) return `[${value.map(canonical).join(",")}]`;
  if (value === null || typeof value !== "object") return JSON.stringify(value);
  return `{${Object.keys(value).sort().map((key) => `${JSON.stringify(key)}:${canonical(value[key])}`).join(",")}}`;
}

/** Return SHA-256 in hexadecimal. Written out: browsers keep crypto.subtle from pages of plain http. Source: FIPS 180-4. */
function sha256(bytes) {
  const [initial, constants] = sha256Constants(), blocks = ((bytes.length + 8) >> 6) + 1;
  const padded = new Uint8Array(blocks * 64), view = new DataView(padded.buffer);
  padded.set(bytes);
  padded[bytes.length] = 0x80;
  view.setUint32(blocks * 64 - 8, Math.floor((bytes.length * 8) / 2 ** 32));
  view.setUint32(blocks * 64 - 4, (bytes.length * 8) >>> 0);
  const hash = Uint32Array.from(initial), w = new Uint32Array(64);
  for (let block = 0; block < blocks; block++) mixBlock(view, block * 64, w, hash, constants);
  return Array.from(hash, (word) => word.toString(16).padStart(8, "0")).join("");
}

function mixBlock(view, at, w, hash, constants) {
  const turn = (x, n) => (x >>> n) | (x << (32 - n));
  for (let t = 0; t < 16; t++) w[t] = view.getUint32(at + 4 * t);
  for (let t = 16; t < 64; t++) {
    const s0 = turn(w[t - 15], 7) ^ turn(w[t - 15], 18) ^ (w[t - 15] >>> 3);
    const s1 = turn(w[t - 2], 17) ^ turn(w[t - 2], 19) ^ (w[t - 2] >>> 10);
    w[t] = w[t - 16] + s0 + w[t - 7] + s1;
  }
  let [a, b, c, d, e, f, g, h] = hash;
  for (let t = 0; t < 64; t++) {
    const s1 = turn(e, 6) ^ turn(e, 11) ^ turn(e, 25), s0 = turn(a, 2) ^ turn(a, 13) ^ turn(a, 22);
    const first = (h + s1 + ((e & f) ^ (~e & g)) + constants[t] + w[t]) | 0;
    const second = (s0 + ((a & b) ^ (a & c) ^ (b & c))) | 0;
    [h, g, f, e, d, c, b, a] = [g, f, e, (d + first) | 0, c, b, a, (first + second) | 0];
  }
  [a, b, c, d, e, f, g, h].forEach((word, i) => { hash[i] += word; });
}

/** Return the first 32 bits of the fractions of the square roots of 8 primes and the cube roots of 64. */
function sha256Constants() {
  const primes = [];
  for (let n = 2; primes.length < 64; n++) if (primes.every((p) => n % p)) primes.push(n);
  const root = (n, k) => { // exact: floor(n^(1/k) * 2^32) in whole numbers
    const wanted = BigInt(n) << BigInt(32 * k);
    let low = 0n, high = 1n << 37n;
    while (high - low > 1n) {
      const middle = (low + high) >> 1n;
      if (middle ** BigInt(k) <= wanted) low = middle; else high = middle;
    }
    return Number(low & 0xffffffffn);
  };
  return [primes.slice(0, 8).map((p) => root(p, 2)), Uint32Array.from(primes, (p) => root(p, 3))];
}
