/** One image model's answers: headline, what it saw, heat map on request, bars, round-trip time, or what is wrong. */

import { ServiceError, heatMap, isAbort, predictPicture } from "./api.js";
import { Bars, verdict } from "./bars.js";
import { fromTemplate, part } from "./dom.js";
import { duration } from "./words.js";

/** @typedef {import("./models.js").Model} Model */
/** @typedef {import("./picture.js").Picture} Picture */

export class ImageCard {
  element = fromTemplate("image-card-template");
  #parts = {
    version: part(this.element, "version", HTMLElement),
    time: part(this.element, "time", HTMLElement),
    problem: part(this.element, "problem", HTMLElement),
    waiting: part(this.element, "waiting", HTMLElement),
    answer: part(this.element, "answer", HTMLElement),
    verdict: part(this.element, "verdict", HTMLElement),
    seen: part(this.element, "seen", HTMLImageElement),
    explain: part(this.element, "explain", HTMLButtonElement),
    ask: part(this.element, "ask", HTMLElement),
    heat: part(this.element, "heat", HTMLImageElement),
    legend: part(this.element, "legend", HTMLElement),
    explainProblem: part(this.element, "explain-problem", HTMLElement),
  };
  #bars = new Bars(part(this.element, "bars", HTMLElement));
  /** @type {Picture | null} */
  #picture = null;
  #current = new AbortController();
  #onExplain;

  /**
   * @param {Model} model
   * @param {() => void} onCode the person wants to see this model's code
   * @param {() => void} onExplain explaining was switched on or off
   */
  constructor(model, onCode, onExplain) {
    this.model = model;
    this.#onExplain = onExplain;
    const name = part(this.element, "name", HTMLElement);
    name.textContent = model.name;
    name.id = `model-${model.name}`;
    this.element.setAttribute("aria-labelledby", name.id);
    this.#parts.seen.alt = `The picture as ${model.name} saw it`;
    this.#parts.explain.setAttribute("aria-label", `Explain the answer of ${model.name}`);
    this.#parts.explain.addEventListener("click", () => this.#switchExplaining());
    const code = part(this.element, "code", HTMLButtonElement);
    code.setAttribute("aria-label", `Show the code for ${model.name}`);
    code.addEventListener("click", onCode);
  }

  /** Whether the heat map is wanted. */
  get explaining() {
    return this.#parts.explain.getAttribute("aria-pressed") === "true";
  }

  /**
   * Ask the model; a newer question takes the place of one under way.
   *
   * @param {Picture} picture
   * @param {boolean} settled false while the picture still changes from moment to moment, as during a stroke of the pen
   * @returns {Promise<string>} the answer as a sentence; empty where a newer question came
   */
  async ask(picture, settled) {
    this.#current.abort();
    const { signal } = (this.#current = new AbortController());
    this.#picture = picture;
    this.element.setAttribute("aria-busy", "true");
    if (this.explaining) this.#parts.explain.setAttribute("aria-busy", "true");
    try {
      const prediction = await predictPicture(this.model.name, picture.blob, signal);
      const [label, probability] = verdict(prediction);
      this.#parts.verdict.replaceChildren(strong(label), ` ${probability}`);
      this.#parts.time.textContent = `${duration(prediction.milliseconds)} round trip`;
      this.#parts.version.textContent = prediction.version || this.model.version;
      if (prediction.seen) this.#parts.seen.src = prediction.seen;
      this.#bars.show(prediction);
      this.#showAnswer(null);
      if (this.explaining && settled) await this.#explain(signal);
      return `${this.model.name}: ${label}, ${probability}.`;
    } catch (error) {
      if (isAbort(error)) return "";
      if (!(error instanceof ServiceError)) throw error;
      this.#showAnswer(error);
      return `${this.model.name}: ${error.message}`;
    } finally {
      if (!signal.aborted) this.element.removeAttribute("aria-busy");
    }
  }

  /** @param {ServiceError | null} error in place of an answer */
  #showAnswer(error) {
    this.#parts.waiting.hidden = true;
    this.#parts.answer.hidden = error !== null;
    showProblem(this.#parts.problem, error);
    if (error) this.#parts.time.textContent = "";
  }

  async #switchExplaining() {
    const explaining = !this.explaining;
    this.#parts.explain.setAttribute("aria-pressed", String(explaining));
    this.#onExplain();
    if (explaining) {
      await this.#explain(this.#current.signal);
    } else {
      this.#showHeat(null);
      showProblem(this.#parts.explainProblem, null);
    }
  }

  /** @param {AbortSignal} signal */
  async #explain(signal) {
    if (!this.#picture) return;
    this.#parts.explain.setAttribute("aria-busy", "true");
    try {
      const file = await heatMap(this.model.name, this.#picture.blob, signal);
      if (this.explaining) this.#showHeat(file);
      showProblem(this.#parts.explainProblem, null);
    } catch (error) {
      if (isAbort(error)) return;
      if (!(error instanceof ServiceError)) throw error;
      this.#showHeat(null);
      showProblem(this.#parts.explainProblem, error);
    } finally {
      if (!signal.aborted) this.#parts.explain.removeAttribute("aria-busy");
    }
  }

  /** @param {Blob | null} file */
  #showHeat(file) {
    const { heat, ask, legend } = this.#parts;
    URL.revokeObjectURL(heat.src);
    heat.hidden = file === null;
    ask.hidden = file !== null;
    legend.textContent = file ? "Red for, blue against" : "Which pixels decided";
    if (file) heat.src = URL.createObjectURL(file);
    else heat.removeAttribute("src");
  }
}

/**
 * Fill or hide a place for a problem.
 *
 * @param {HTMLElement} place
 * @param {ServiceError | null} error
 */
export function showProblem(place, error) {
  place.hidden = error === null;
  place.replaceChildren(...(error ? [strong(error.title), ` ${error.message}`] : []));
}

/**
 * @param {string} text
 * @returns {HTMLElement}
 */
export function strong(text) {
  const element = document.createElement("strong");
  element.textContent = text;
  return element;
}
