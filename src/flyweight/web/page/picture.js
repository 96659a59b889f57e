// File to pixels, as `decode` of runtime/preprocess.py: the browser decodes and turns, the rest is integers.
"use strict";

const STRIP_PIXELS = 1 << 22; // read in strips: phones refuse canvases above some 16 million pixels

/** An error in three lines: what was found, what to do, where to read more. */
class Problem extends Error {
  constructor(what, advice) {
    super(what);
    Object.assign(this, { what, advice, more: "docs/serve.md#the-page" });
  }
}

/** Return {width, height, channels, data}: bytes, channels last, of a file the browser can read. */
async function decode(file, channels, maxPixels) {
  if (file.size === 0) throw new Problem(`${file.name} is empty (0 bytes)`, "choose another picture, or copy it again");
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, {
      imageOrientation: "from-image", colorSpaceConversion: "none", premultiplyAlpha: "none",
    });
  } catch (error) {
    throw new Problem(
      `${file.name} cannot be decoded by this browser (${file.type || "unknown type"}, ${file.size} bytes)`,
      "save it as JPEG or PNG, or use flyweight predict, which reads TIFF and PPM too");
  }
  try {
    const { width, height } = bitmap;
    if (width * height > maxPixels) {
      throw new Problem(
        `${file.name} has ${width}×${height} px; the limit is ${Math.floor(maxPixels / 1e6)} Mpx`, "scale it down");
    }
    return { width, height, channels, data: pixelsOf(bitmap, channels) };
  } finally {
    bitmap.close();
  }
}

function pixelsOf(bitmap, channels) {
  const { width, height } = bitmap, rows = Math.max(1, Math.min(height, Math.floor(STRIP_PIXELS / width)));
  const canvas = Object.assign(document.createElement("canvas"), { width, height: rows });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const data = new Uint8Array(width * height * channels);
  for (let y = 0; y < height; y += rows) {
    context.clearRect(0, 0, width, rows);
    context.drawImage(bitmap, 0, -y);
    const count = Math.min(rows, height - y);
    fill(data, y * width * channels, context.getImageData(0, 0, width, count).data, channels);
  }
  canvas.width = canvas.height = 0; // gives the memory back at once
  return data;
}

/** Write RGBA pixels as 4 channels, as RGB on white, or as gray, in the integers of Pillow. */
function fill(data, at, rgba, channels) {
  if (channels === 4) return data.set(rgba, at);
  for (let p = 0; p < rgba.length; p += 4) {
    const alpha = rgba[p + 3];
    const r = onWhite(rgba[p], alpha), g = onWhite(rgba[p + 1], alpha), b = onWhite(rgba[p + 2], alpha);
    if (channels === 1) {
      data[at++] = (r * 19595 + g * 38470 + b * 7471 + 0x8000) >> 16;
    } else {
      data[at++] = r;
      data[at++] = g;
      data[at++] = b;
    }
  }
}

function onWhite(value, alpha) {
  if (alpha === 255) return value;
  const mixed = value * alpha * 128 + 255 * (255 - alpha) * 128 + (0x80 << 7);
  return (((mixed >> 8) + mixed) >> 8) >> 7;
}

/** Tell whether this browser gives pixels back as they were put in; some add noise against tracking. */
async function pixelsAreTrue() {
  const put = new ImageData(16, 16);
  for (let i = 0; i < put.data.length; i++) put.data[i] = i % 4 === 3 ? 255 : (i * 37) % 256;
  const bitmap = await createImageBitmap(put, { colorSpaceConversion: "none", premultiplyAlpha: "none" });
  const found = pixelsOf(bitmap, 4);
  bitmap.close();
  return found.every((value, i) => value === put.data[i]);
}
