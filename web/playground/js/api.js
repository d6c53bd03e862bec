/** The service's HTTP API, as far as the page needs it; every failure is a `ServiceError` with a sentence to show. */

import { keyHeaders } from "./key.js";

const TIMEOUT_SECONDS = 30;

/** A request that was not answered as asked; `message` is a sentence for people. */
export class ServiceError extends Error {
  /**
   * @param {string} message
   * @param {string} title a few words about the kind of problem
   * @param {number} status HTTP status; 0 where there was no answer
   */
  constructor(message, title, status) {
    super(message);
    this.title = title;
    this.status = status;
  }
}

/**
 * What a model says about one example.
 *
 * @typedef {object} Prediction
 * @property {string[]} chosen the label that it decides for; of a model with independent labels all that apply
 * @property {Array<[label: string, probability: number]>} probabilities in the model's order
 * @property {string | null} seen address of the picture that the network was given
 * @property {string} version which version of the model answered; empty where the service does not say
 * @property {number} milliseconds from sending the request to having read the answer
 */

/**
 * The Open Inference Protocol's description of a model, as far as it is used here.
 *
 * @typedef {object} Metadata
 * @property {string} name
 * @property {string[]} [versions]
 * @property {Array<{name: string, datatype: string, shape: number[]}>} inputs
 */

/**
 * An address of the API; the page lies at the service's root.
 *
 * @param {...string} segments of the path
 * @returns {URL}
 */
export function address(...segments) {
  return new URL(segments.map(encodeURIComponent).join("/"), document.baseURI);
}

/** @returns {Promise<string[]>} the names of all models */
export async function modelNames() {
  const { models } = await json(address("v1", "models"));
  return models;
}

/**
 * @param {string} model
 * @returns {Promise<Metadata>}
 */
export function describe(model) {
  return json(address("v2", "models", model));
}

/**
 * @param {string} model
 * @param {Blob} picture
 * @param {AbortSignal} signal
 * @returns {Promise<Prediction>}
 */
export function predictPicture(model, picture, signal) {
  const url = address("predictions", model);
  url.searchParams.set("picture", "true");
  return predict(url, { method: "POST", body: picture, signal });
}

/**
 * @param {string} model
 * @param {number[]} features
 * @param {AbortSignal} signal
 * @returns {Promise<Prediction>}
 */
export function predictVector(model, features, signal) {
  const headers = { "Content-Type": "application/json" };
  return predict(address("predictions", model), { method: "POST", headers, body: JSON.stringify(features), signal });
}

/**
 * The heat map of the pixels that spoke for and against a model's answer.
 *
 * @param {string} model
 * @param {Blob} picture
 * @param {AbortSignal} signal
 * @returns {Promise<Blob>} a PNG file
 */
export function heatMap(model, picture, signal) {
  const request = { method: "POST", headers: { Accept: "image/png" }, body: picture, signal };
  return send(address("explanations", model), request, (response) => response.blob());
}

/**
 * @param {URL} url
 * @param {RequestInit} request
 * @returns {Promise<Prediction>}
 */
function predict(url, request) {
  const begun = performance.now();
  return send(url, request, async (response) => {
    const answer = await response.json();
    return {
      chosen: answer.labels ?? [answer.label],
      probabilities: Object.entries(answer.probabilities),
      seen: answer.picture ? `data:image/png;base64,${answer.picture}` : null,
      version: response.headers.get("X-Model-Version") ?? "",
      milliseconds: performance.now() - begun,
    };
  });
}

/**
 * @param {URL} url
 * @returns {Promise<any>}
 */
function json(url) {
  return send(url, {}, (response) => response.json());
}

/**
 * @template T
 * @param {URL} url
 * @param {RequestInit} request one that its signal aborts rejects with the browser's `AbortError`
 * @param {(response: Response) => Promise<T>} read reads the body of a successful answer
 * @returns {Promise<T>}
 */
async function send(url, request, read) {
  const timeout = AbortSignal.timeout(TIMEOUT_SECONDS * 1000);
  const signal = request.signal ? AbortSignal.any([request.signal, timeout]) : timeout;
  const headers = { Accept: "application/json", ...request.headers, ...keyHeaders() };
  try {
    const response = await fetch(url, { ...request, headers, signal, cache: "no-store" });
    if (!response.ok) throw await refusal(response);
    return await read(response);
  } catch (error) {
    if (error instanceof ServiceError || isAbort(error)) throw error;
    if (timeout.aborted) {
      throw new ServiceError(`The service gave no answer within ${TIMEOUT_SECONDS} seconds.`, "No answer", 0);
    }
    if (error instanceof SyntaxError) {
      throw new ServiceError(`${url.pathname} answered with something else than JSON.`, "Unexpected answer", 0);
    }
    throw new ServiceError(`The service at ${url.origin} cannot be reached.`, "No connection", 0);
  }
}

/**
 * @param {Response} response
 * @returns {Promise<ServiceError>}
 */
async function refusal(response) {
  const problem = await response.json().catch(() => null);
  const title = problem?.title ?? `The service answered ${response.status} ${response.statusText}`.trim();
  return new ServiceError(sentence(problem?.detail ?? `${title}, and gave no reason`), title, response.status);
}

/**
 * Problem bodies write their detail without a capital letter or a full stop.
 *
 * @param {string} text
 * @returns {string}
 */
function sentence(text) {
  const capital = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?]$/.test(capital) ? capital : `${capital}.`;
}

/**
 * Whether a newer request took the place of this one.
 *
 * @param {unknown} error
 * @returns {boolean}
 */
export function isAbort(error) {
  return error instanceof DOMException && error.name === "AbortError";
}
