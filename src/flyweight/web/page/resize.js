// The resize of runtime/resize.py, operation for operation: integer weights, two passes over 8-bit pixels.
// docs/resize.md states it; tests/vectors/resize.json holds for both.
"use strict";

const FRACTION_BITS = 22;
const FILTERS = {
  bilinear: { support: 1, weight: (x) => Math.max(0, 1 - Math.abs(x)) },
  bicubic: { support: 2, weight: bicubic },
  box: { support: 0.5, weight: (x) => (x > -0.5 && x <= 0.5 ? 1 : 0) },
};

function bicubic(distance) {
  const a = -0.5, x = Math.abs(distance);
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0;
}

/** Return, for each of `out` pixels, the first input pixel and the integer weights from there on. */
function windows(size, start, stop, out, interpolation) {
  const { support, weight } = FILTERS[interpolation];
  const scale = (stop - start) / out, stretch = Math.max(scale, 1);
  const reach = support * stretch, inverse = 1 / stretch;
  return Array.from({ length: out }, (_, place) => {
    const centre = start + (place + 0.5) * scale;
    const first = Math.max(Math.trunc(centre - reach + 0.5), 0);
    const count = Math.min(Math.trunc(centre + reach + 0.5), size) - first;
    const heights = Array.from({ length: count }, (_, tap) => weight((tap + first - centre + 0.5) * inverse));
    const total = heights.reduce((sum, height) => sum + height, 0);
    const weights = heights.map((height) => {
      const scaled = (height / total) * (1 << FRACTION_BITS);
      return Math.trunc(scaled + (scaled < 0 ? -0.5 : 0.5));
    });
    return { first, weights: Int32Array.from(weights) };
  });
}

/**
 * Return (height, width, channels) bytes of an image {width, height, channels, data}, channels last.
 * `box` is [left, top, right, bottom] of what is resized; the kernel still reaches pixels around it.
 */
function resize(image, width, height, interpolation, box) {
  const [left, top, right, bottom] = box || [0, 0, image.width, image.height];
  const down = windows(image.height, top, bottom, height, interpolation);
  const from = Math.min(...down.map((w) => w.first));
  const to = Math.max(...down.map((w) => w.first + w.weights.length));
  const across = horizontal(image, windows(image.width, left, right, width, interpolation), from, to);
  return { width, height, channels: image.channels, data: vertical(across, width * image.channels, down, from) };
}

function horizontal(image, across, from, to) {
  const { width, channels, data } = image;
  const done = new Uint8Array((to - from) * across.length * channels);
  let at = 0;
  for (let y = from; y < to; y++) {
    for (const { first, weights } of across) {
      const begin = (y * width + first) * channels;
      for (let c = 0; c < channels; c++) {
        let sum = 1 << (FRACTION_BITS - 1);
        for (let tap = 0, p = begin + c; tap < weights.length; tap++, p += channels) sum += weights[tap] * data[p];
        done[at++] = clipped(sum);
      }
    }
  }
  return done;
}

function vertical(across, stride, down, from) {
  const done = new Uint8Array(down.length * stride);
  let at = 0;
  for (const { first, weights } of down) {
    const begin = (first - from) * stride;
    for (let x = 0; x < stride; x++) {
      let sum = 1 << (FRACTION_BITS - 1);
      for (let tap = 0, p = begin + x; tap < weights.length; tap++, p += stride) sum += weights[tap] * across[p];
      done[at++] = clipped(sum);
    }
  }
  return done;
}

function clipped(sum) {
  const value = sum >> FRACTION_BITS; // 32 bits hold it: weights add up to one, 1.25 of bicubic's without their signs
  return value < 0 ? 0 : value > 255 ? 255 : value;
}

/** Return the square that the network takes, as `fit_image` of runtime/preprocess.py. */
function fitImage(image, preprocess) {
  const size = preprocess.image_size, { width, height } = image;
  if (width === size && height === size) return image;
  if (preprocess.resize === "pad") return padded(image, preprocess);
  let box = [0, 0, width, height];
  if (preprocess.resize === "crop") {
    const side = Math.min(width, height), left = (width - side) / 2, top = (height - side) / 2;
    box = [left, top, left + side, top + side];
  }
  return resize(image, size, size, preprocess.interpolation, box);
}

function padded(image, preprocess) {
  const size = preprocess.image_size, { width, height, channels } = image, longest = Math.max(width, height);
  const [innerW, innerH] = [width, height].map((side) =>
    Math.max(1, Math.floor((2 * side * size + longest) / (2 * longest))));
  const inner = resize(image, innerW, innerH, preprocess.interpolation);
  const fill = preprocess.mean.map((value) => Math.floor(value * 255 + 0.5));
  const data = Uint8Array.from({ length: size * size * channels }, (_, i) => fill[i % channels]);
  const left = Math.floor((size - innerW) / 2), top = Math.floor((size - innerH) / 2);
  for (let y = 0; y < innerH; y++) {
    const row = inner.data.subarray(y * innerW * channels, (y + 1) * innerW * channels);
    data.set(row, ((top + y) * size + left) * channels);
  }
  return { width: size, height: size, channels, data };
}
