// The bundle that this page carries: its model in onnxruntime-web, its golden vectors, its calibration.
"use strict";

/** Return the bytes of an inlined file: base64 of gzip. */
async function inlined(id) {
  const text = document.getElementById(`packed-${id}`).textContent.trim();
  const packed = Uint8Array.fromBase64 ? Uint8Array.fromBase64(text) : Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/** Return onnxruntime-web, loaded from this page: nothing is asked of a network. */
async function loadRuntime() {
  const address = URL.createObjectURL(new Blob([await inlined("runtime-module")], { type: "text/javascript" }));
  const ort = await import(address);
  URL.revokeObjectURL(address);
  ort.env.wasm.numThreads = 1;
  ort.env.wasm.wasmBinary = (await inlined("runtime-wasm")).buffer;
  ort.env.logLevel = "error";
  return ort;
}

class Network {
  /** @param facts What build.py wrote: classes, preprocess, temperature, reject_threshold, variant, ... */
  constructor(facts, ort, model) {
    Object.assign(this, { facts, ort, model, size: facts.preprocess.image_size, channels: facts.preprocess.channels });
  }

  static async load(facts) {
    const network = new Network(facts, await loadRuntime(), await inlined("model"));
    network.session = await network.newSession();
    await network.logits(network.tensor(new Uint8Array(network.channels * network.size ** 2))); // the first run allocates
    return network;
  }

  newSession() {
    return this.ort.InferenceSession.create(this.model, { executionProviders: ["wasm"], logSeverityLevel: 3 });
  }

  /** Return a tensor (N, C, S, S) of planar bytes. */
  tensor(planes) {
    const { channels, size } = this;
    return new this.ort.Tensor("uint8", planes, [planes.length / (channels * size * size), channels, size, size]);
  }

  /** Return logits (N * K) of a tensor. */
  async logits(tensor, session = this.session) {
    const found = await session.run({ [session.inputNames[0]]: tensor });
    return found[session.outputNames[0]].data;
  }

  /** Return the planes (C, S, S) that the network takes, of an image of any size. */
  prepare(image) {
    const { data, channels } = fitImage(image, this.facts.preprocess), area = this.size ** 2;
    const planes = new Uint8Array(channels * area);
    for (let c = 0; c < channels; c++) for (let i = 0; i < area; i++) planes[c * area + i] = data[i * channels + c];
    return planes;
  }

  /** Return {top: [{class, confidence}], rejected} as `flyweight predict --json` says it. */
  predict(logits, most = 5) {
    const { classes, temperature, reject_threshold } = this.facts, probs = softmax(logits, temperature);
    const order = classes.map((_, i) => i).sort((a, b) => probs[b] - probs[a] || a - b);
    const top = order.slice(0, most).map((i) => ({ class: classes[i], confidence: probs[i] }));
    return { top, rejected: reject_threshold !== null && top[0].confidence < reject_threshold };
  }

  /** Return the golden images' planes, and the logits recorded of them. */
  async golden() {
    const [planes, bytes] = await Promise.all([inlined("golden-images"), inlined("golden-logits")]);
    return { planes, logits: new Float32Array(bytes.buffer) };
  }

  /** Compare this runtime's logits of the golden images with the recorded ones. */
  async agreement() {
    const { planes, logits } = await this.golden(), k = this.facts.classes.length, n = logits.length / k;
    const each = planes.length / n;
    let largest = 0, same = 0;
    for (let i = 0; i < n; i++) {
      const found = await this.logits(this.tensor(planes.slice(i * each, (i + 1) * each)));
      const recorded = logits.subarray(i * k, (i + 1) * k);
      for (let c = 0; c < k; c++) {
        const error = Math.abs(found[c] - recorded[c]);
        largest = Number.isFinite(error) ? Math.max(largest, error) : Infinity;
      }
      same += best(found) === best(recorded);
    }
    const { tolerance } = this.facts.variant;
    return { ok: largest <= tolerance, n, max_error: Number.isFinite(largest) ? largest : null, tolerance, same };
  }
}

function softmax(logits, temperature) {
  const scaled = Array.from(logits, (logit) => logit / temperature), top = Math.max(...scaled);
  const powers = scaled.map((value) => Math.exp(value - top));
  const sum = powers.reduce((total, power) => total + power, 0);
  return powers.map((power) => power / sum);
}

function best(logits) {
  let found = 0;
  for (let i = 1; i < logits.length; i++) if (logits[i] > logits[found]) found = i;
  return found;
}
