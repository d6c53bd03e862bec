/** Photos: the phone's own camera application where there is one, else a view of the camera on the page. */

import { byId, part } from "./dom.js";
import { encode, sizeInWords } from "./picture.js";
import { watchChoice } from "./sources.js";

/** @typedef {import("./picture.js").Picture} Picture */

/** The longest edge that is sent; the models see 28 pixels of it. */
const EDGE = 640;

/** What went wrong with the camera, by the name of the browser's error. @type {Record<string, string>} */
const REASONS = {
  NotAllowedError: "The browser does not let this page use the camera. Allow it beside the address, or choose a file.",
  NotFoundError: "There is no camera on this device. Choose a file instead.",
  NotReadableError: "Another program is using the camera.",
};

/** @param {(picture: Picture) => void} onPicture */
export function watchCamera(onPicture) {
  const open = byId("camera-open", HTMLButtonElement);
  if (matchMedia("(pointer: coarse)").matches) {
    const input = byId("camera-file", HTMLInputElement);
    open.addEventListener("click", () => input.click());
    watchChoice(input, onPicture);
    open.hidden = false;
    // Browsers give the camera to pages that came over TLS or from this machine.
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
      // Closed while the browser asked whether it may.
      if (!this.#dialog.open) this.#release();
    } catch (error) {
      const name = error instanceof DOMException ? error.name : "";
      this.#error.textContent = REASONS[name] ?? "The camera cannot be used. Choose a file instead.";
      this.#error.hidden = false;
    }
  }

  async #photograph() {
    const { videoWidth: width, videoHeight: height } = this.#video;
    // The view shows the largest square in the middle.
    const square = Math.min(width, height);
    const canvas = document.createElement("canvas");
    canvas.width = canvas.height = Math.min(square, EDGE);
    const place = /** @type {const} */ ([(width - square) / 2, (height - square) / 2, square, square]);
    canvas.getContext("2d")?.drawImage(this.#video, ...place, 0, 0, canvas.width, canvas.height);
    this.#dialog.close();
    const blob = await encode(canvas, "image/jpeg");
    this.#onPicture({ blob, name: "photo.jpg", caption: `Photo, ${sizeInWords(blob.size)}`, own: false });
  }

  #release() {
    const stream = this.#video.srcObject;
    if (stream instanceof MediaStream) stream.getTracks().forEach((track) => track.stop());
    this.#video.srcObject = null;
    this.#take.disabled = true;
  }
}
