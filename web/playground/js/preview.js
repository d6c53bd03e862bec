/** Shows the picture that was given, as it was given. */

import { byId, part } from "./dom.js";

/** @typedef {import("./picture.js").Picture} Picture */

/** Pictures up to this size are shown pixel by pixel. */
const SMALL = 64;

export class Stage {
  #root = byId("stage", HTMLElement);
  #empty = part(this.#root, "empty", HTMLElement);
  #image = part(this.#root, "image", HTMLImageElement);
  #unknown = part(this.#root, "unknown", HTMLElement);
  #caption = part(this.#root, "caption", HTMLElement);

  constructor() {
    this.#image.addEventListener("load", () => {
      this.#image.classList.toggle("pixels", Math.max(this.#image.naturalWidth, this.#image.naturalHeight) <= SMALL);
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

  /** @param {HTMLElement} shown */
  #reveal(shown) {
    for (const each of [this.#empty, this.#image, this.#unknown]) each.hidden = each !== shown;
  }
}
