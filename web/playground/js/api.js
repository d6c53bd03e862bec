/** The part of the service's HTTP API that the page uses. Every failure is a `ServiceError` with a sentence to show. */

import { keyHeaders } from "./key.js";

const TIMEOUT_S = 30;

/** A failed request; `message` is a sentence for people. */
export class ServiceError extends Error {
  /**
   * @param {string} message
   * @param {string} title the kind of problem in a few words
   * @param {number} status HTTP status; 0 without an answer
   */
  constructor(message, title, status) {
    super(message);
    this.title = title;
    this.status = status;
  }
}

/**
 * A model's answer for one example.
 *
 * @typedef {object} Prediction
 * @property {string[]} labels the most probable label, or with independent labels all that apply
 * @property {Array<[label: string, probability: number]>} probabilities in the model's order
 * @property {number[] | null} values the answer of a model that does not classify, in place of labels and probabilities
 * @property {string | null} input URL of the picture that the network received, scaled and prepared
 * @property {string | null} outline URL of the outline of a photograph's item, transparent elsewhere
 * @property {Novelty | null} novelty how unlike the training data the example is, if the model says that
 * @property {string} version the version that answered; empty if the service does not name it
 * @property {number} milliseconds from sending the request to the last byte of the answer
 */

/**
 * An out-of-distribution score, 0 to 1, and the one that 5 % of the model's test examples exceed.
 *
 * @typedef {object} Novelty
 * @property {number} score
 * @property {number} threshold
 */

/**
 * The body of an answer of `/predictions`: `label` of one class, `labels` of independent labels, or plain `values`.
 *
 * @typedef {object} PredictionBody
 * @property {string} label
 * @property {string[]} [labels]
 * @property {Record<string, number>} [probabilities]
 * @property {number[]} [values]
 * @property {string} [picture] a PNG file in base64
 * @property {string} [outline] a PNG file in base64
 * @property {number} [ood] the out-of-distribution score
 * @property {number} [ood_threshold]
 */

/**
 * The body of an error, by RFC 9457.
 *
 * @typedef {object} Problem
 * @property {string} [title]
 * @property {string} [detail]
 */

/**
 * The fields used here of a model's description by the Open Inference Protocol.
 *
 * @typedef {object} Metadata
 * @property {string} name
 * @property {string[]} [versions]
 * @property {Array<{name: string, datatype: string, shape: number[]}>} inputs
 * @property {Array<{name: string}>} outputs
 */

/**
 * A URL of the API, relative to the page, which is at the service's root.
 *
 * @param {...string} segments of the path
 * @returns {URL}
 */
export function apiUrl(...segments) {
  return new URL(segments.map(encodeURIComponent).join("/"), document.baseURI);
}

/** @returns {Promise<string[]>} the names of all models */
export async function modelNames() {
  const { models } = /** @type {{models: string[]}} */ (await getJson(apiUrl("v1", "models")));
  return models;
}

/**
 * @param {string} model
 * @returns {Promise<Metadata>}
 */
export async function describe(model) {
  return /** @type {Metadata} */ (await getJson(apiUrl("v2", "models", model)));
}

/**
 * @param {string} model
 * @param {boolean} withNovelty whether to request the out-of-distribution score, which not every model has
 * @param {Blob} picture
 * @param {AbortSignal} signal
 * @returns {Promise<Prediction>}
 */
export function predictPicture(model, withNovelty, picture, signal) {
  const url = apiUrl("predictions", model);
  url.searchParams.set("picture", "true");
  if (withNovelty) url.searchParams.set("ood", "true");
  return predict(url, { method: "POST", body: picture, signal });
}

/**
 * @param {string} model
 * @param {string} example numbers as JSON
 * @param {AbortSignal} signal
 * @returns {Promise<Prediction>}
 */
export function predictNumbers(model, example, signal) {
  const headers = { "Content-Type": "application/json" };
  return predict(apiUrl("predictions", model), { method: "POST", headers, body: example, signal });
}

/**
 * The heat map of the pixels that count for and against a model's answer.
 *
 * @param {string} model
 * @param {Blob} picture
 * @param {AbortSignal} signal
 * @returns {Promise<Blob>} a PNG file
 */
export function heatMap(model, picture, signal) {
  const request = { method: "POST", headers: { Accept: "image/png" }, body: picture, signal };
  return send(apiUrl("explanations", model), request, (response) => response.blob());
}

/**
 * @param {URL} url
 * @param {RequestInit} request
 * @returns {Promise<Prediction>}
 */
function predict(url, request) {
  const start = performance.now();
  return send(url, request, async (response) => {
    const answer = /** @type {PredictionBody} */ (await response.json());
    return {
      labels: answer.values ? [] : (answer.labels ?? [answer.label]),
      probabilities: Object.entries(answer.probabilities ?? {}),
      values: answer.values ?? null,
      input: pngUrl(answer.picture),
      outline: pngUrl(answer.outline),
      novelty:
        answer.ood === undefined || answer.ood_threshold === undefined
          ? null
          : { score: answer.ood, threshold: answer.ood_threshold },
      version: response.headers.get("X-Model-Version") ?? "",
      milliseconds: performance.now() - start,
    };
  });
}

/**
 * @param {string | undefined} file a PNG file in base64
 * @returns {string | null}
 */
function pngUrl(file) {
  return file ? `data:image/png;base64,${file}` : null;
}

/**
 * @param {URL} url
 * @returns {Promise<unknown>}
 */
function getJson(url) {
  return send(url, {}, (response) => response.json());
}

/**
 * @template T
 * @param {URL} url
 * @param {RequestInit} request when its signal aborts it, the promise rejects with the browser's `AbortError`
 * @param {(response: Response) => Promise<T>} read reads the body of a successful answer
 * @returns {Promise<T>}
 */
async function send(url, request, read) {
  const timeout = AbortSignal.timeout(TIMEOUT_S * 1000);
  const signal = request.signal ? AbortSignal.any([request.signal, timeout]) : timeout;
  const headers = { Accept: "application/json", ...request.headers, ...keyHeaders() };
  try {
    const response = await fetch(url, { ...request, headers, signal, cache: "no-store" });
    if (!response.ok) throw await errorFrom(response);
    return await read(response);
  } catch (error) {
    if (error instanceof ServiceError || isAbort(error)) throw error;
    if (timeout.aborted) {
      throw new ServiceError(`The service did not answer within ${TIMEOUT_S} seconds.`, "No answer", 0);
    }
    if (error instanceof SyntaxError) {
      throw new ServiceError(`The answer of ${url.pathname} is not valid JSON.`, "Unexpected answer", 0);
    }
    throw new ServiceError(`The service at ${url.origin} cannot be reached.`, "No connection", 0);
  }
}

/**
 * @param {Response} response
 * @returns {Promise<ServiceError>}
 */
async function errorFrom(response) {
  const problem = /** @type {Problem | null} */ (await response.json().catch(() => null));
  const title = problem?.title ?? `The service answered ${response.status} ${response.statusText}`.trim();
  return new ServiceError(sentence(problem?.detail ?? `${title} without a reason`), title, response.status);
}

/**
 * Turn a problem's detail, which has neither capital nor period, into a sentence.
 *
 * @param {string} text
 * @returns {string}
 */
function sentence(text) {
  const capital = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?]$/.test(capital) ? capital : `${capital}.`;
}

/**
 * Whether a newer request replaced this one.
 *
 * @param {unknown} error
 * @returns {boolean}
 */
export function isAbort(error) {
  return error instanceof DOMException && error.name === "AbortError";
}
