/** Numbers as text for people. */

const PERCENT = new Intl.NumberFormat("en-US", { style: "percent", minimumFractionDigits: 1, maximumFractionDigits: 1 });

const DECIMAL = new Intl.NumberFormat("en-US", { maximumSignificantDigits: 6 });

/**
 * A probability such as `97.3%`. Rounding never shows 0% or 100% for a probability that is neither.
 *
 * @param {number} probability 0 to 1
 * @returns {string}
 */
export function percent(probability) {
  if (probability > 0 && probability < 0.0005) return "<0.1%";
  if (probability < 1 && probability >= 0.9995) return ">99.9%";
  return PERCENT.format(probability);
}

/**
 * A number with six significant digits, such as `1,204.57`.
 *
 * @param {number} value
 * @returns {string}
 */
export function decimal(value) {
  return DECIMAL.format(value);
}

/**
 * A duration such as `4.2 ms` or `1.25 s`.
 *
 * @param {number} milliseconds
 * @returns {string}
 */
export function duration(milliseconds) {
  if (milliseconds >= 1000) return `${(milliseconds / 1000).toFixed(2)} s`;
  return `${milliseconds.toFixed(milliseconds < 10 ? 1 : 0)} ms`;
}
