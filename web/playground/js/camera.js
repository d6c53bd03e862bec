/** Photos: from the camera application on a phone, otherwise from a camera view on the page. */

import { byId, part } from "./dom.js";
import { watchFileInput } from "./files.js";
import { encode, formatSize } from "./picture.js";

/** @typedef {import("./picture.js").Picture} Picture */

/** Side of the photo to send: small to upload, and far more than the models' 28 pixels. */
const MAX_SIDE_PX = 640;

/** Messages by the name of the browser's error. @type {Record<string, string>} */
const REASONS = {
  NotAllowedError: "The browser blocks the camera for this page. Allow it next to the address bar, or choose a file.",
  NotFoundError: "This device has no camera. Choose a file instead.",
  NotReadableError: "Another program is using the camera. Close it, or choose a file.",
};

/** @param {(picture: Picture) => void} onPicture */
export function watchCamera(onPicture) {
  const open = byId("camera-open", HTMLButtonElement);
  if (matchMedia("(pointer: coarse)").matches) {
    const input = byId("camera-file", HTMLInputElement);
    open.addEventListener("click", () => input.click());
    watchFileInput(input, onPicture);
    open.hidden = false;
    // Browsers offer the camera only to pages from HTTPS or from localhost.
  } else if (navigator.mediaDevices) {
    const camera = new Camera(onPicture);
    open.addEventListener("click", () => camera.open());
    open.hidden = false;
  }
}

class Camera {
  #dialog = byId("camera", HTMLDialogElement);
  #video = part(this.#dialog, "video", HTMLVideoElement);
  #error = part(this.#dialog, "error", HTMLElement);
  #take = part(this.#dialog, "take", HTMLButtonElement);
  #onPicture;

  /** @param {(picture: Picture) => void} onPicture */
  constructor(onPicture) {
    this.#onPicture = onPicture;
    this.#take.addEventListener("click", () => this.#photograph());
    part(this.#dialog, "cancel", HTMLButtonElement).addEventListener("click", () => this.#dialog.close());
    this.#dialog.addEventListener("close", () => this.#release());
    this.#video.addEventListener("playing", () => (this.#take.disabled = false));
  }

  async open() {
    this.#error.hidden = true;
    this.#dialog.showModal();
    try {
      const video = { facingMode: "environment", width: { ideal: 1280 }, height: { ideal: 960 } };
      const stream = await navigator.mediaDevices.getUserMedia({ video });
      this.#video.srcObject = stream;
      // The dialog may have been closed while the browser asked for permission.
      if (!this.#dialog.open) this.#release();
    } catch (error) {
      const name = error instanceof DOMException ? error.name : "";
      this.#error.textContent = REASONS[name] ?? "The camera cannot be used. Choose a file instead.";
      this.#error.hidden = false;
    }
  }

  async #photograph() {
    const { videoWidth: width, videoHeight: height } = this.#video;
    // Like the view, take the largest centered square.
    const side = Math.min(width, height);
    const canvas = document.createElement("canvas");
    canvas.width = canvas.height = Math.min(side, MAX_SIDE_PX);
    const square = /** @type {const} */ ([(width - side) / 2, (height - side) / 2, side, side]);
    canvas.getContext("2d")?.drawImage(this.#video, ...square, 0, 0, canvas.width, canvas.height);
    this.#dialog.close();
    const blob = await encode(canvas, "image/jpeg");
    this.#onPicture({ blob, name: "photo.jpg", caption: `Photo, ${formatSize(blob.size)}`, onDisk: false });
  }

  #release() {
    const stream = this.#video.srcObject;
    if (stream instanceof MediaStream) stream.getTracks().forEach((track) => track.stop());
    this.#video.srcObject = null;
    this.#take.disabled = true;
  }
}
