/** The drawing: 28 × 28 gray pixels, a round pen, and a history for undo. */

export const SIDE = 28;
/** More strokes than a drawing has; each takes 784 bytes. */
const UNDO_LIMIT = 100;

/** Coordinates are in pixels from the top left corner; the center of the first pixel is (0.5, 0.5). */
export class Pixels {
  /** Gray values, row by row; 0 is black. */
  values = new Uint8ClampedArray(SIDE * SIDE);
  /** @type {Uint8ClampedArray<ArrayBuffer>[]} */
  #history = [];
  /** Share of each pixel that the current stroke covers, 0 to 1. */
  #coverage = new Float32Array(SIDE * SIDE);

  /** @returns {boolean} whether there is a stroke to undo */
  get canUndo() {
    return this.#history.length > 0;
  }

  /** @returns {boolean} whether every pixel is black */
  get empty() {
    return this.values.every((value) => value === 0);
  }

  /** Begin a stroke. */
  begin() {
    this.#save();
    this.#coverage.fill(0);
  }

  /**
   * Draw a segment of the stroke: all pixels near the line between two points, with a soft edge.
   *
   * @param {[x: number, y: number]} from
   * @param {[x: number, y: number]} to
   * @param {number} radius of the pen, in pixels
   * @param {number} shade gray value, 0 to 255
   */
  line(from, to, radius, shade) {
    const previous = this.#history[this.#history.length - 1];
    for (let index = 0; index < this.values.length; index += 1) {
      const center = /** @type {[number, number]} */ ([(index % SIDE) + 0.5, Math.floor(index / SIDE) + 0.5]);
      const coverage = Math.min(Math.max(radius + 0.5 - distance(center, from, to), 0), 1);
      // A pixel keeps the stroke's largest coverage, so that crossing it twice leaves the edge soft.
      if (coverage > this.#coverage[index]) {
        this.#coverage[index] = coverage;
        this.values[index] = previous[index] + (shade - previous[index]) * coverage;
      }
    }
  }

  /** Undo the last stroke. */
  undo() {
    const previous = this.#history.pop();
    if (previous) this.values = previous;
  }

  /** Make every pixel black; undo restores them. */
  clear() {
    this.#save();
    this.values.fill(0);
  }

  #save() {
    this.#history.push(this.values.slice());
    if (this.#history.length > UNDO_LIMIT) this.#history.shift();
  }
}

/**
 * The distance of a point from the line segment between two others.
 *
 * @param {[number, number]} point
 * @param {[number, number]} from
 * @param {[number, number]} to
 * @returns {number}
 */
function distance([x, y], [fromX, fromY], [toX, toY]) {
  const [alongX, alongY] = [toX - fromX, toY - fromY];
  const length = alongX ** 2 + alongY ** 2;
  const share = length && Math.min(Math.max(((x - fromX) * alongX + (y - fromY) * alongY) / length, 0), 1);
  return Math.hypot(x - fromX - share * alongX, y - fromY - share * alongY);
}
