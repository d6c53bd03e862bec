/**
 * Shows the chosen picture unchanged, before any scaling for the models. A picture of a format that only the service
 * reads, such as HEIC in Chromium, is shown as the models receive it.
 */

import { byId, part } from "./dom.js";

/** @typedef {import("./picture.js").Picture} Picture */

/** Pictures up to this size are scaled up pixel by pixel, because smoothing would blur the 28 × 28 test images. */
const PIXELATED_SIDE_PX = 64;

export class Preview {
  #root = byId("preview", HTMLElement);
  #empty = part(this.#root, "empty", HTMLElement);
  #image = part(this.#root, "image", HTMLImageElement);
  #unknown = part(this.#root, "unknown", HTMLElement);
  #shade = part(this.#root, "shade", HTMLElement);
  #caption = part(this.#root, "caption", HTMLElement);
  /** @type {Picture | null} */
  #picture = null;
  /** URL of the current picture as a model received it; empty before the answer. */
  #modelInput = "";
  #displayable = true;

  constructor() {
    this.#image.addEventListener("load", () => {
      const side = Math.max(this.#image.naturalWidth, this.#image.naturalHeight);
      this.#image.classList.toggle("pixels", side <= PIXELATED_SIDE_PX);
      this.#reveal(this.#image);
    });
    this.#image.addEventListener("error", () => {
      this.#displayable = false;
      this.#reveal(this.#unknown);
      this.#showModelInput();
    });
  }

  /** @param {Picture} picture */
  show(picture) {
    this.#picture = picture;
    this.#modelInput = "";
    this.#displayable = true;
    URL.revokeObjectURL(this.#image.src);
    this.#image.src = URL.createObjectURL(picture.blob);
    this.#image.alt = picture.caption;
    this.#caption.textContent = picture.caption;
    this.#shade.hidden = true;
  }

  /**
   * Dim what a model took for the background of the current picture.
   *
   * @param {Picture} picture ignored unless it is the current one
   * @param {string} outline URL of a picture that is opaque where the item is; empty: nothing is dimmed
   */
  showOutline(picture, outline) {
    if (picture !== this.#picture) return;
    this.#shade.style.setProperty("--outline", `url(${outline})`);
    this.#shade.hidden = outline === "" || !this.#displayable;
  }

  /**
   * Take a picture as a model received it, in case the browser cannot display the picture itself.
   *
   * @param {Picture} picture ignored unless it is the current one
   * @param {string} modelInput a URL
   */
  offerModelInput(picture, modelInput) {
    if (picture !== this.#picture) return;
    this.#modelInput = modelInput;
    this.#showModelInput();
  }

  #showModelInput() {
    if (this.#displayable || !this.#picture || !this.#modelInput) return;
    const caption = `${this.#picture.caption}, as the models receive it`;
    URL.revokeObjectURL(this.#image.src);
    this.#image.src = this.#modelInput;
    this.#image.alt = caption;
    this.#caption.textContent = caption;
    this.#modelInput = "";
  }

  /** @param {HTMLElement} visible */
  #reveal(visible) {
    for (const each of [this.#empty, this.#image, this.#unknown]) each.hidden = each !== visible;
  }
}
