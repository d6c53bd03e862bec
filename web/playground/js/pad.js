/** The drawing pad: `Pixels` with a pen for pointer and keyboard. */

import { byId, part, within } from "./dom.js";
import { encode } from "./picture.js";
import { Pixels, SIDE } from "./pixels.js";

/** During a stroke the models classify this often: it feels live, and a request has time to finish. */
const CLASSIFY_INTERVAL_MS = 150;

/** @type {Record<string, [x: number, y: number]>} */
const STEPS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

export class Pad {
  #root = byId("pad", HTMLElement);
  #canvas = part(this.#root, "canvas", HTMLCanvasElement);
  #cursor = part(this.#root, "cursor", HTMLElement);
  #hint = part(this.#root, "hint", HTMLElement);
  #undo = part(this.#root, "undo", HTMLButtonElement);
  #clear = part(this.#root, "clear", HTMLButtonElement);
  #pixels = new Pixels();
  /** Position of the pointer while it draws. @type {[x: number, y: number] | null} */
  #pointer = null;
  /** Position of the keyboard's pen: column and row. @type {[x: number, y: number]} */
  #pen = [SIDE / 2, SIDE / 2];
  #penDown = false;
  #lastChangeMs = 0;
  #onChange;
  #announce;

  /**
   * @param {(settled: boolean) => void} onChange called when the drawing changes; `settled` is false during a stroke
   * @param {(sentence: string) => void} announce for screen readers
   */
  constructor(onChange, announce) {
    this.#onChange = onChange;
    this.#announce = announce;
    const canvas = this.#canvas;
    canvas.addEventListener("pointerdown", (event) => this.#pointerDown(event));
    canvas.addEventListener("pointermove", (event) => this.#pointerMove(event));
    canvas.addEventListener("pointerup", () => this.#pointerUp());
    canvas.addEventListener("pointercancel", () => this.#pointerUp());
    canvas.addEventListener("keydown", (event) => this.#keyDown(event));
    canvas.addEventListener("focus", () => this.#showCursor());
    canvas.addEventListener("blur", () => this.#liftPen());
    this.#undo.addEventListener("click", () => this.#undoStroke());
    this.#clear.addEventListener("click", () => {
      this.#pixels.clear();
      this.#show(true);
    });
    this.#draw();
  }

  /** Whether nothing is drawn. */
  get empty() {
    return this.#pixels.empty;
  }

  /** @returns {Promise<Blob>} the drawing as a PNG file */
  png() {
    return encode(this.#canvas, "image/png");
  }

  /** @param {PointerEvent} event */
  #pointerDown(event) {
    if (event.button !== 0 || !event.isPrimary) return;
    this.#canvas.setPointerCapture(event.pointerId);
    this.#liftPen();
    this.#pixels.begin();
    this.#pointer = this.#position(event);
    this.#line(this.#pointer, this.#pointer);
  }

  /** @param {PointerEvent} event */
  #pointerMove(event) {
    if (!this.#pointer || !event.isPrimary) return;
    // One event can combine several movements since the last frame.
    for (const each of event.getCoalescedEvents?.() ?? [event]) {
      const to = this.#position(each);
      this.#line(this.#pointer, to);
      this.#pointer = to;
    }
  }

  #pointerUp() {
    if (!this.#pointer) return;
    this.#pointer = null;
    this.#show(true);
  }

  /** @param {KeyboardEvent} event */
  #keyDown(event) {
    const step = STEPS[event.key];
    if (step && !event.ctrlKey && !event.metaKey && !event.altKey) this.#move(step);
    else if (event.key === " " && !event.repeat) this.#togglePen();
    else if (event.key === "Escape" && this.#penDown) this.#liftPen();
    else if (event.key === "z" && (event.ctrlKey || event.metaKey)) this.#undoStroke();
    else return;
    event.preventDefault();
  }

  /** @param {[x: number, y: number]} step */
  #move([stepX, stepY]) {
    const [x, y] = this.#pen;
    const clamp = (/** @type {number} */ value) => Math.min(Math.max(value, 0), SIDE - 1);
    this.#pen = [clamp(x + stepX), clamp(y + stepY)];
    if (this.#penDown) this.#line([x + 0.5, y + 0.5], this.#penCenter());
    this.#showCursor();
    this.#announce(`Column ${this.#pen[0] + 1}, row ${this.#pen[1] + 1}`);
  }

  #togglePen() {
    if (this.#penDown) {
      this.#liftPen();
      return;
    }
    this.#penDown = true;
    this.#pixels.begin();
    this.#line(this.#penCenter(), this.#penCenter());
    this.#showCursor();
    this.#announce("Pen down");
  }

  #liftPen() {
    if (!this.#penDown) return;
    this.#penDown = false;
    this.#showCursor();
    this.#show(true);
  }

  #undoStroke() {
    this.#pixels.undo();
    this.#show(true);
  }

  /**
   * @param {[x: number, y: number]} from
   * @param {[x: number, y: number]} to
   */
  #line(from, to) {
    this.#pixels.line(from, to, this.#option("width"), this.#option("shade"));
    this.#show(false);
  }

  /** @param {boolean} settled */
  #show(settled) {
    this.#draw();
    const now = performance.now();
    if (!settled && now - this.#lastChangeMs < CLASSIFY_INTERVAL_MS) return;
    this.#lastChangeMs = now;
    this.#onChange(settled);
  }

  #draw() {
    const { values, canUndo, empty } = this.#pixels;
    const image = new ImageData(SIDE, SIDE);
    values.forEach((value, index) => image.data.set([value, value, value, 255], index * 4));
    // The pixels are read back after each stroke, which is slow from GPU memory.
    this.#canvas.getContext("2d", { willReadFrequently: true })?.putImageData(image, 0, 0);
    this.#undo.disabled = !canUndo;
    this.#clear.disabled = empty;
    this.#hint.hidden = canUndo;
  }

  #showCursor() {
    const [x, y] = this.#pen;
    this.#cursor.style.left = `${(x / SIDE) * 100}%`;
    this.#cursor.style.top = `${(y / SIDE) * 100}%`;
    this.#cursor.classList.toggle("down", this.#penDown);
  }

  /** @returns {[x: number, y: number]} the center of the pixel under the keyboard's pen */
  #penCenter() {
    return [this.#pen[0] + 0.5, this.#pen[1] + 0.5];
  }

  /**
   * @param {PointerEvent} event
   * @returns {[x: number, y: number]} in pixels of the drawing
   */
  #position(event) {
    const box = this.#canvas.getBoundingClientRect();
    return [((event.clientX - box.left) / box.width) * SIDE, ((event.clientY - box.top) / box.height) * SIDE];
  }

  /** @param {"width" | "shade"} name of the radio buttons */
  #option(name) {
    return Number(within(this.#root, `input[name="${name}"]:checked`, HTMLInputElement).value);
  }
}
