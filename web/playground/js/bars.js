/** A prediction as a headline and a table with one bar per label, or one row per number. */

import { fromTemplate, within } from "./dom.js";
import { decimal, percent } from "./formatting.js";

/** @typedef {import("./api.js").Prediction} Prediction */

/** With more labels than these, the table shows the most probable ones only, and the first of more numbers.
 * FashionMNIST's ten fit. */
const MAX_ROWS = 12;

/** One model's bars. */
export class Bars {
  #table = fromTemplate("bars-template");
  #body = within(this.#table, "tbody", HTMLTableSectionElement);
  /** @type {Map<string, HTMLElement>} */
  #rows = new Map();

  /** @param {HTMLElement} container its content is replaced by the table */
  constructor(container) {
    container.replaceChildren(this.#table);
  }

  /** @param {Prediction} prediction */
  show({ probabilities, labels, values }) {
    this.#table.classList.toggle("plain", values !== null);
    if (values) {
      this.#showNumbers(values);
      return;
    }
    const sorted = probabilities.toSorted((one, other) => other[1] - one[1]);
    const shown = probabilities.length > MAX_ROWS ? sorted.slice(0, MAX_ROWS) : probabilities;
    // Rows in the same order are reused, so that bars move from one answer to the next.
    if (shown.map(([label]) => label).join("\n") !== [...this.#rows.keys()].join("\n")) {
      this.#rows = new Map(shown.map(([label]) => [label, row(label)]));
      this.#body.replaceChildren(...this.#rows.values());
    }
    for (const [label, probability] of shown) {
      const element = /** @type {HTMLElement} */ (this.#rows.get(label));
      element.classList.toggle("chosen", labels.includes(label));
      within(element, ".bar-fill", HTMLElement).style.width = `${probability * 100}%`;
      within(element, ".bar-value", HTMLElement).textContent = percent(probability);
    }
  }

  /** @param {number[]} values */
  #showNumbers(values) {
    within(this.#table, "caption", HTMLElement).textContent = "The model's numbers";
    // The headline shows a single one.
    const shown = values.length === 1 ? [] : values.slice(0, MAX_ROWS);
    const rows = shown.map((value, index) => numberRow(`Number ${index + 1}`, decimal(value)));
    if (values.length > MAX_ROWS) rows.push(numberRow("…", `${values.length - MAX_ROWS} more`));
    this.#rows.clear();
    this.#body.replaceChildren(...rows);
  }
}

/**
 * @param {string} name
 * @param {string} text
 * @returns {HTMLElement}
 */
function numberRow(name, text) {
  const element = row(name);
  within(element, ".bar-value", HTMLElement).textContent = text;
  return element;
}

/**
 * @param {string} label
 * @returns {HTMLElement}
 */
function row(label) {
  const element = fromTemplate("bar-template");
  within(element, "th", HTMLElement).textContent = label;
  return element;
}

/**
 * The headline of a prediction: the label and its probability, all labels that apply and theirs, or the number.
 *
 * @param {Prediction} prediction
 * @returns {[label: string, probability: string]}
 */
export function verdict({ labels, probabilities, values }) {
  if (values) return [values.length === 1 ? decimal(values[0]) : `${values.length} numbers`, ""];
  if (labels.length === 0) return ["No label applies", ""];
  const shares = new Map(probabilities);
  return [labels.join(", "), labels.map((label) => percent(shares.get(label) ?? 0)).join(", ")];
}
