/** A prediction as a headline and a table with a bar for each label. */

import { fromTemplate, within } from "./dom.js";
import { percent } from "./words.js";

/** @typedef {import("./api.js").Prediction} Prediction */

/** Labels of a model with more than these are sorted, and only the most probable ones are shown. */
const MOST = 12;

/** One model's bars. */
export class Bars {
  #table = fromTemplate("bars-template");
  #body = within(this.#table, "tbody", HTMLTableSectionElement);
  /** @type {Map<string, HTMLElement>} */
  #rows = new Map();

  /** @param {HTMLElement} place where the table goes */
  constructor(place) {
    place.replaceChildren(this.#table);
  }

  /** @param {Prediction} prediction */
  show({ probabilities, chosen }) {
    const sorted = probabilities.toSorted((one, other) => other[1] - one[1]);
    const shown = probabilities.length > MOST ? sorted.slice(0, MOST) : probabilities;
    // Rows in the same order stay where they are, so that bars move from one answer to the next.
    if (shown.map(([label]) => label).join("\n") !== [...this.#rows.keys()].join("\n")) {
      this.#rows = new Map(shown.map(([label]) => [label, row(label)]));
      this.#body.replaceChildren(...this.#rows.values());
    }
    for (const [label, probability] of shown) {
      const element = /** @type {HTMLElement} */ (this.#rows.get(label));
      element.classList.toggle("chosen", chosen.includes(label));
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
 * What a prediction says in a few words: the label and its probability, or the labels that apply.
 *
 * @param {Prediction} prediction
 * @returns {[label: string, probability: string]}
 */
export function verdict({ chosen, probabilities }) {
  if (chosen.length === 0) return ["No label applies", ""];
  const found = new Map(probabilities);
  return [chosen.join(", "), chosen.map((label) => percent(found.get(label) ?? 0)).join(", ")];
}
