/**
 * A picture to classify: a file, a photo, a test image or a drawing.
 *
 * @typedef {object} Picture
 * @property {Blob} blob the bytes to send, unchanged; its `type` becomes the content type
 * @property {string} name a file name for it, such as `ankle-boot.png`
 * @property {string} caption one short line for people
 * @property {boolean} onDisk whether the person already has a file of this name
 */

/**
 * A file size for people, such as `0.4 kB`.
 *
 * @param {number} bytes
 * @returns {string}
 */
export function formatSize(bytes) {
  if (bytes < 1000) return `${bytes} bytes`;
  return bytes < 1e6 ? `${(bytes / 1e3).toFixed(1)} kB` : `${(bytes / 1e6).toFixed(1)} MB`;
}

/**
 * Encode a canvas as a picture file.
 *
 * @param {HTMLCanvasElement} canvas
 * @param {"image/png" | "image/jpeg"} type
 * @returns {Promise<Blob>}
 */
export function encode(canvas, type) {
  return new Promise((resolve, reject) => {
    const settle = (/** @type {Blob | null} */ blob) =>
      blob ? resolve(blob) : reject(new Error(`the browser cannot encode the canvas as ${type}`));
    canvas.toBlob(settle, type, 0.92);
  });
}
