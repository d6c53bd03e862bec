/** One image model's answer: headline, its input, heat map on request, bars and round-trip time; or an error. */

import { ServiceError, heatMap, isAbort, predictPicture } from "./api.js";
import { Bars, verdict } from "./bars.js";
import { fromTemplate, part } from "./dom.js";
import { duration } from "./formatting.js";

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
    doubt: part(this.element, "doubt", HTMLElement),
    input: part(this.element, "model-input", HTMLImageElement),
    explain: part(this.element, "explain", HTMLButtonElement),
    explainLabel: part(this.element, "explain-label", HTMLElement),
    heatMap: part(this.element, "heat-map", HTMLImageElement),
    legend: part(this.element, "legend", HTMLElement),
    explainProblem: part(this.element, "explain-problem", HTMLElement),
  };
  #bars = new Bars(part(this.element, "bars", HTMLElement));
  /** @type {Picture | null} */
  #picture = null;
  #outline = "";
  #current = new AbortController();
  #onExplain;

  /**
   * @param {Model} model
   * @param {() => void} onCode called to show this model's code
   * @param {() => void} onExplain called when explaining is switched on or off
   */
  constructor(model, onCode, onExplain) {
    this.model = model;
    this.#onExplain = onExplain;
    const name = part(this.element, "name", HTMLElement);
    name.textContent = model.name;
    name.id = `model-${model.name}`;
    this.element.setAttribute("aria-labelledby", name.id);
    this.#parts.input.alt = `Input of ${model.name}`;
    // Explanations are of labels.
    part(this.element, "explanation", HTMLElement).hidden = !model.classifies;
    this.#parts.explain.setAttribute("aria-label", `Explain the answer of ${model.name}`);
    this.#parts.explain.addEventListener("click", () => this.#toggleExplaining());
    const code = part(this.element, "code", HTMLButtonElement);
    code.setAttribute("aria-label", `Show the code for ${model.name}`);
    code.addEventListener("click", onCode);
  }

  /** URL of the picture that the network received for the shown answer; empty without an answer. */
  get modelInput() {
    return this.#parts.answer.hidden ? "" : this.#parts.input.src;
  }

  /** URL of the outline that was found for the shown answer; empty without one. */
  get outline() {
    return this.#parts.answer.hidden ? "" : this.#outline;
  }

  /** Whether the heat map is switched on. */
  get explaining() {
    return this.#parts.explain.getAttribute("aria-pressed") === "true";
  }

  /**
   * Classify a picture. A newer picture aborts the request of an older one.
   *
   * @param {Picture} picture
   * @param {boolean} settled false during a stroke of the pen, when no heat map is requested
   * @returns {Promise<string>} the answer as a sentence; empty if a newer picture replaced this one
   */
  async classify(picture, settled) {
    this.#current.abort();
    const { signal } = (this.#current = new AbortController());
    this.#picture = picture;
    this.element.setAttribute("aria-busy", "true");
    if (this.explaining) this.#parts.explain.setAttribute("aria-busy", "true");
    try {
      const prediction = await predictPicture(this.model.name, this.model.hasNovelty, picture.blob, signal);
      const [label, probability] = verdict(prediction);
      this.#parts.verdict.replaceChildren(strong(label), ` ${probability}`);
      const doubt = reasonForDoubt(prediction.novelty);
      this.#parts.doubt.hidden = doubt === "";
      this.#parts.doubt.replaceChildren(strong("Not sure"), ` ${doubt}`);
      this.#parts.time.textContent = `${duration(prediction.milliseconds)} round trip`;
      this.#parts.version.textContent = prediction.version || this.model.version;
      this.#outline = prediction.outline ?? "";
      if (prediction.input) this.#parts.input.src = prediction.input;
      this.#bars.show(prediction);
      this.#showAnswer(null);
      if (this.explaining && settled) await this.#explain(signal);
      return `${this.model.name}: ${[label, probability].filter(Boolean).join(", ")}.${doubt && ` Not sure. ${doubt}`}`;
    } catch (error) {
      if (isAbort(error)) return "";
      if (!(error instanceof ServiceError)) throw error;
      this.#showAnswer(error);
      return `${this.model.name}: ${error.message}`;
    } finally {
      if (!signal.aborted) this.element.removeAttribute("aria-busy");
    }
  }

  /** @param {ServiceError | null} error shown instead of an answer */
  #showAnswer(error) {
    this.#parts.waiting.hidden = true;
    this.#parts.answer.hidden = error !== null;
    showProblem(this.#parts.problem, error);
    if (error) this.#parts.time.textContent = "";
  }

  async #toggleExplaining() {
    const explaining = !this.explaining;
    this.#parts.explain.setAttribute("aria-pressed", String(explaining));
    this.#onExplain();
    if (explaining) {
      await this.#explain(this.#current.signal);
    } else {
      this.#showHeatMap(null);
      showProblem(this.#parts.explainProblem, null);
    }
  }

  /** @param {AbortSignal} signal */
  async #explain(signal) {
    if (!this.#picture) return;
    this.#parts.explain.setAttribute("aria-busy", "true");
    try {
      const png = await heatMap(this.model.name, this.#picture.blob, signal);
      if (this.explaining) this.#showHeatMap(png);
      showProblem(this.#parts.explainProblem, null);
    } catch (error) {
      if (isAbort(error)) return;
      if (!(error instanceof ServiceError)) throw error;
      this.#showHeatMap(null);
      showProblem(this.#parts.explainProblem, error);
    } finally {
      if (!signal.aborted) this.#parts.explain.removeAttribute("aria-busy");
    }
  }

  /** @param {Blob | null} png */
  #showHeatMap(png) {
    const { heatMap, explainLabel, legend } = this.#parts;
    URL.revokeObjectURL(heatMap.src);
    heatMap.hidden = png === null;
    explainLabel.hidden = png !== null;
    legend.textContent = png ? "Red for, blue against" : "Which pixels decided";
    if (png) heatMap.src = URL.createObjectURL(png);
    else heatMap.removeAttribute("src");
  }
}

/**
 * Why an answer may be wrong whatever its probability, as a sentence; empty if the example is like the training data.
 *
 * @param {import("./api.js").Novelty | null} novelty
 * @returns {string}
 */
function reasonForDoubt(novelty) {
  if (novelty === null || novelty.score <= novelty.threshold) return "";
  const [score, threshold] = [novelty.score, novelty.threshold].map((value) => value.toFixed(2));
  return `This picture is unlike those that the model learned from: ${score}, where 95 % of known ones stay below ${threshold}.`;
}

/**
 * Show an error, or hide its element.
 *
 * @param {HTMLElement} element
 * @param {ServiceError | null} error
 */
export function showProblem(element, error) {
  element.hidden = error === null;
  element.replaceChildren(...(error ? [strong(error.title), ` ${error.message}`] : []));
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
