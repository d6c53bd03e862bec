/** One model of numbers: a field for each feature or one for the whole array, and the answer. */

import { ServiceError, isAbort, predictNumbers } from "./api.js";
import { Bars, verdict } from "./bars.js";
import { fromTemplate, part, within } from "./dom.js";
import { showProblem, strong } from "./image_card.js";
import { duration } from "./formatting.js";

/** @typedef {import("./models.js").Model} Model */

/** Vectors of up to this many features have a field for each. */
const MAX_FIELDS = 32;
/** Larger arrays start with an empty field, because a person pastes them. */
const MAX_PREFILLED = 1000;

export class NumbersCard {
  element = fromTemplate("numbers-card-template");
  #form = part(this.element, "form", HTMLFormElement);
  #version = part(this.element, "version", HTMLElement);
  #time = part(this.element, "time", HTMLElement);
  #problem = part(this.element, "problem", HTMLElement);
  #answer = part(this.element, "answer", HTMLElement);
  #verdict = part(this.element, "verdict", HTMLElement);
  #bars = new Bars(part(this.element, "bars", HTMLElement));
  /** The features' fields; none if `#array` takes their place. @type {HTMLInputElement[]} */
  #fields = [];
  /** @type {HTMLTextAreaElement | null} */
  #array = null;
  #current = new AbortController();
  #onAnswer;

  /**
   * @param {Model} model
   * @param {() => void} onCode called to show this model's code
   * @param {() => void} onChange called when a number changes
   * @param {(sentence: string) => void} onAnswer called with each answer or error, as a sentence
   */
  constructor(model, onCode, onChange, onAnswer) {
    this.model = model;
    this.#onAnswer = onAnswer;
    const name = part(this.element, "name", HTMLElement);
    name.textContent = model.name;
    name.id = `model-${model.name}`;
    this.element.setAttribute("aria-labelledby", name.id);
    if (model.shape.length === 1 && model.shape[0] <= MAX_FIELDS) this.#addFields(model.shape[0]);
    else this.#addArray(model.shape);
    this.#form.addEventListener("input", onChange);
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#predict();
    });
    const code = part(this.element, "code", HTMLButtonElement);
    code.setAttribute("aria-label", `Show the code for ${model.name}`);
    code.addEventListener("click", onCode);
  }

  /** The example as JSON; an empty field is 0. */
  get example() {
    if (this.#array) return this.#array.value.trim();
    return `[${this.#fields.map((field) => field.valueAsNumber || 0).join(", ")}]`;
  }

  /** @param {number[]} shape */
  #addArray(shape) {
    const label = fromTemplate("array-template");
    const size = shape.reduce((product, length) => product * length, 1);
    within(label, "span", HTMLElement).textContent = `${shape.join(" × ")} numbers as JSON`;
    this.#array = within(label, "textarea", HTMLTextAreaElement);
    if (size <= MAX_PREFILLED) this.#array.value = JSON.stringify(zeros(shape));
    part(this.element, "inputs", HTMLElement).append(label);
  }

  /** @param {number} count */
  #addFields(count) {
    const inputs = part(this.element, "inputs", HTMLElement);
    for (let number = 1; number <= count; number += 1) {
      const label = fromTemplate("feature-template");
      within(label, "span", HTMLElement).textContent = `Feature ${number}`;
      this.#fields.push(within(label, "input", HTMLInputElement));
      inputs.append(label);
    }
  }

  async #predict() {
    this.#current.abort();
    const { signal } = (this.#current = new AbortController());
    this.element.setAttribute("aria-busy", "true");
    try {
      const prediction = await predictNumbers(this.model.name, this.example, signal);
      const [label, probability] = verdict(prediction);
      this.#verdict.replaceChildren(strong(label), ` ${probability}`);
      this.#time.textContent = `${duration(prediction.milliseconds)} round trip`;
      this.#version.textContent = prediction.version || this.model.version;
      this.#bars.show(prediction);
      this.#answer.hidden = false;
      showProblem(this.#problem, null);
      this.#onAnswer(`${this.model.name}: ${[label, probability].filter(Boolean).join(", ")}.`);
    } catch (error) {
      if (isAbort(error)) return;
      if (!(error instanceof ServiceError)) throw error;
      this.#time.textContent = "";
      this.#answer.hidden = true;
      showProblem(this.#problem, error);
      this.#onAnswer(`${this.model.name}: ${error.message}`);
    } finally {
      if (!signal.aborted) this.element.removeAttribute("aria-busy");
    }
  }
}

/**
 * @param {number[]} shape
 * @returns {unknown} nested lists of zeros
 */
function zeros([length, ...rest]) {
  return Array.from({ length }, () => (rest.length > 0 ? zeros(rest) : 0));
}
