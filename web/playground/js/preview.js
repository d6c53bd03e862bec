/** Shows the chosen picture unchanged, before any scaling for the models. */

import { byId, part } from "./dom.js";

/** @typedef {import("./picture.js").Picture} Picture */

/** Pictures up to this size are scaled up pixel by pixel, because smoothing would blur the 28 × 28 test images. */
const PIXELATED_SIDE_PX = 64;

export class Preview {
  #root = byId("preview", HTMLElement);
  #empty = part(this.#root, "empty", HTMLElement);
  #image = part(this.#root, "image", HTMLImageElement);
  #unknown = part(this.#root, "unknown", HTMLElement);
  #caption = part(this.#root, "caption", HTMLElement);

  constructor() {
    this.#image.addEventListener("load", () => {
      const side = Math.max(this.#image.naturalWidth, this.#image.naturalHeight);
      this.#image.classList.toggle("pixels", side <= PIXELATED_SIDE_PX);
      this.#reveal(this.#image);
    });
    this.#image.addEventListener("error", () => this.#reveal(this.#unknown));
  }

  /** @param {Picture} picture */
  show(picture) {
    URL.revokeObjectURL(this.#image.src);
    this.#image.src = URL.createObjectURL(picture.blob);
    this.#image.alt = picture.caption;
    this.#caption.textContent = picture.caption;
  }

  /** @param {HTMLElement} visible */
  #reveal(visible) {
    for (const each of [this.#empty, this.#image, this.#unknown]) each.hidden = each !== visible;
  }
}
