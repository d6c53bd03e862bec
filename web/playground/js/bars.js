/** A prediction as a headline and a table with one bar per label. */

import { fromTemplate, within } from "./dom.js";
import { percent } from "./formatting.js";

/** @typedef {import("./api.js").Prediction} Prediction */

/** With more labels than these, the table shows the most probable ones only. FashionMNIST's ten fit. */
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
  show({ probabilities, labels }) {
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
 * The headline of a prediction: the label and its probability, or all labels that apply and theirs.
 *
 * @param {Prediction} prediction
 * @returns {[label: string, probability: string]}
 */
export function verdict({ labels, probabilities }) {
  if (labels.length === 0) return ["No label applies", ""];
  const values = new Map(probabilities);
  return [labels.join(", "), labels.map((label) => percent(values.get(label) ?? 0)).join(", ")];
}
