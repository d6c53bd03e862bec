/** One vector model: one field per feature, and the answer as headline and bars. */

import { ServiceError, isAbort, predictVector } from "./api.js";
import { Bars, verdict } from "./bars.js";
import { fromTemplate, part, within } from "./dom.js";
import { showProblem, strong } from "./image_card.js";
import { duration } from "./formatting.js";

/** @typedef {import("./models.js").Model} Model */

export class VectorCard {
  element = fromTemplate("vector-card-template");
  #form = part(this.element, "form", HTMLFormElement);
  #version = part(this.element, "version", HTMLElement);
  #time = part(this.element, "time", HTMLElement);
  #problem = part(this.element, "problem", HTMLElement);
  #answer = part(this.element, "answer", HTMLElement);
  #verdict = part(this.element, "verdict", HTMLElement);
  #bars = new Bars(part(this.element, "bars", HTMLElement));
  /** @type {HTMLInputElement[]} */
  #fields = [];
  #current = new AbortController();
  #onAnswer;

  /**
   * @param {Model} model
   * @param {() => void} onCode called to show this model's code
   * @param {() => void} onChange called when a feature changes
   * @param {(sentence: string) => void} onAnswer called with each answer or error, as a sentence
   */
  constructor(model, onCode, onChange, onAnswer) {
    this.model = model;
    this.#onAnswer = onAnswer;
    const name = part(this.element, "name", HTMLElement);
    name.textContent = model.name;
    name.id = `model-${model.name}`;
    this.element.setAttribute("aria-labelledby", name.id);
    this.#addFields();
    this.#form.addEventListener("input", onChange);
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#predict();
    });
    const code = part(this.element, "code", HTMLButtonElement);
    code.setAttribute("aria-label", `Show the code for ${model.name}`);
    code.addEventListener("click", onCode);
  }

  /** The values of the fields; an empty field is 0. */
  get features() {
    return this.#fields.map((field) => field.valueAsNumber || 0);
  }

  #addFields() {
    const inputs = part(this.element, "inputs", HTMLElement);
    for (let number = 1; number <= this.model.features; number += 1) {
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
      const prediction = await predictVector(this.model.name, this.features, signal);
      const [label, probability] = verdict(prediction);
      this.#verdict.replaceChildren(strong(label), ` ${probability}`);
      this.#time.textContent = `${duration(prediction.milliseconds)} round trip`;
      this.#version.textContent = prediction.version || this.model.version;
      this.#bars.show(prediction);
      this.#answer.hidden = false;
      showProblem(this.#problem, null);
      this.#onAnswer(`${this.model.name}: ${label}, ${probability}.`);
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
