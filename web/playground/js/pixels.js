/** The drawing itself: 28 × 28 grey pixels, a round pen, and the strokes that can be taken back. */

export const SIDE = 28;
const STROKES_KEPT = 100;

/** Coordinates are in pixels from the top left corner; the middle of the first pixel is (0.5, 0.5). */
export class Pixels {
  /** Grey values, row by row; 0 is black. */
  values = new Uint8ClampedArray(SIDE * SIDE);
  /** @type {Uint8ClampedArray<ArrayBuffer>[]} */
  #before = [];
  /** How much of each pixel the stroke under way covers, 0 to 1. */
  #covered = new Float32Array(SIDE * SIDE);

  /** @returns {boolean} whether there is a stroke to take back */
  get canUndo() {
    return this.#before.length > 0;
  }

  /** @returns {boolean} whether all is black */
  get empty() {
    return this.values.every((value) => value === 0);
  }

  /** Begin a stroke. */
  begin() {
    this.#keep();
    this.#covered.fill(0);
  }

  /**
   * Draw a piece of the stroke: all pixels near the line between two points, softly at the edge.
   *
   * @param {[x: number, y: number]} from
   * @param {[x: number, y: number]} to
   * @param {number} radius of the pen, in pixels
   * @param {number} shade grey value, 0 to 255
   */
  line(from, to, radius, shade) {
    const ground = this.#before[this.#before.length - 1];
    for (let place = 0; place < this.values.length; place += 1) {
      const middle = /** @type {[number, number]} */ ([(place % SIDE) + 0.5, Math.floor(place / SIDE) + 0.5]);
      const cover = Math.min(Math.max(radius + 0.5 - distance(middle, from, to), 0), 1);
      // The largest cover of the whole stroke counts, so that going over a place twice keeps its edge soft.
      if (cover > this.#covered[place]) {
        this.#covered[place] = cover;
        this.values[place] = ground[place] + (shade - ground[place]) * cover;
      }
    }
  }

  /** Take the last stroke back. */
  undo() {
    const before = this.#before.pop();
    if (before) this.values = before;
  }

  /** Make all black; that can be taken back too. */
  clear() {
    this.#keep();
    this.values.fill(0);
  }

  #keep() {
    this.#before.push(this.values.slice());
    if (this.#before.length > STROKES_KEPT) this.#before.shift();
  }
}

/**
 * The distance of a point from the line between two others.
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
