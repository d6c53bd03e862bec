/** The test images: the first image of each class in FashionMNIST's test set. */

import { byId, fromTemplate, within } from "./dom.js";

/** @typedef {import("./picture.js").Picture} Picture */

/** @type {ReadonlyArray<[label: string, file: string]>} */
const SAMPLES = [
  ["T-shirt/top", "t-shirt-top.png"],
  ["Trouser", "trouser.png"],
  ["Pullover", "pullover.png"],
  ["Dress", "dress.png"],
  ["Coat", "coat.png"],
  ["Sandal", "sandal.png"],
  ["Shirt", "shirt.png"],
  ["Sneaker", "sneaker.png"],
  ["Bag", "bag.png"],
  ["Ankle boot", "ankle-boot.png"],
];

export class Samples {
  /** @type {HTMLButtonElement[]} */
  #buttons = [];
  /** The button of each picture. @type {WeakMap<Picture, HTMLButtonElement>} */
  #origins = new WeakMap();
  #onPicture;
  #onProblem;

  /**
   * @param {(picture: Picture) => void} onPicture
   * @param {(sentence: string) => void} onProblem
   */
  constructor(onPicture, onProblem) {
    this.#onPicture = onPicture;
    this.#onProblem = onProblem;
    byId("samples", HTMLElement).append(...SAMPLES.map(([label, file]) => this.#item(label, file)));
  }

  /** Choose the first test image, so that the page starts with an answer. */
  chooseFirst() {
    this.#buttons[0].click();
  }

  /**
   * Mark the button of the current picture.
   *
   * @param {Picture} picture if it is not a test image, no button is marked
   */
  mark(picture) {
    for (const button of this.#buttons) {
      button.setAttribute("aria-pressed", String(this.#origins.get(picture) === button));
    }
  }

  /**
   * @param {string} label
   * @param {string} file
   */
  #item(label, file) {
    const item = fromTemplate("sample-template");
    const button = within(item, "button", HTMLButtonElement);
    const image = within(item, "img", HTMLImageElement);
    const url = new URL(`samples/${file}`, document.baseURI);
    image.src = url.href;
    image.alt = label;
    button.title = label;
    button.addEventListener("click", () => this.#choose(button, url, label, file));
    this.#buttons.push(button);
    return item;
  }

  /**
   * @param {HTMLButtonElement} button
   * @param {URL} url
   * @param {string} label
   * @param {string} file
   */
  async #choose(button, url, label, file) {
    try {
      const response = await fetch(url);
      if (!response.ok) throw new TypeError(response.statusText);
      const picture = { blob: await response.blob(), name: file, caption: `Test image: ${label}`, onDisk: false };
      this.#origins.set(picture, button);
      this.#onPicture(picture);
    } catch (error) {
      if (!(error instanceof TypeError)) throw error;
      this.#onProblem("The test image cannot be loaded from the service.");
    }
  }
}
