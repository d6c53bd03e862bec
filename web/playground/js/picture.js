/**
 * A picture to ask the models about, whatever way it came.
 *
 * @typedef {object} Picture
 * @property {Blob} blob the bytes that are sent, as they came; its `type` is sent as the content type
 * @property {string} name a file name for it, such as `ankle-boot.png`
 * @property {string} caption one short line about it, for people
 * @property {boolean} own whether a file of this name lies on the person's own disk already
 */

/**
 * A file's size in words, such as `0.4 kB`.
 *
 * @param {number} bytes
 * @returns {string}
 */
export function sizeInWords(bytes) {
  if (bytes < 1000) return `${bytes} bytes`;
  return bytes < 1e6 ? `${(bytes / 1e3).toFixed(1)} kB` : `${(bytes / 1e6).toFixed(1)} MB`;
}

/**
 * A canvas as a picture file.
 *
 * @param {HTMLCanvasElement} canvas
 * @param {"image/png" | "image/jpeg"} type
 * @returns {Promise<Blob>}
 */
export function encode(canvas, type) {
  return new Promise((resolve, reject) => {
    canvas.toBlob((blob) => (blob ? resolve(blob) : reject(new Error("the browser cannot encode it"))), type, 0.92);
  });
}
