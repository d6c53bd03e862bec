/** Which models the service has, and what each takes: read from the service, so that a new one appears by itself. */

import { ServiceError, describe, modelNames } from "./api.js";

const INTERVAL_SECONDS = 15;

/**
 * @typedef {object} Model
 * @property {string} name
 * @property {"image" | "vector" | "other"} kind
 * @property {number} features how many numbers a vector model takes
 * @property {string} input its input in words, such as `FP32 4`
 * @property {string | null} problem why it cannot be described now, as a sentence; it is asked again
 */

/**
 * Read the models now, whenever the page is looked at again, and every few seconds while it is.
 *
 * @param {(models: Model[]) => void} onModels called with all models, each time
 * @param {(error: ServiceError) => void} onError called when the list cannot be had
 * @returns {() => Promise<void>} reads at once
 */
export function watchModels(onModels, onError) {
  /** @type {Map<string, Model>} */
  let known = new Map();

  async function read() {
    try {
      const names = await modelNames();
      const models = await Promise.all(names.map((name) => kept(known.get(name)) ?? model(name)));
      known = new Map(models.map((each) => [each.name, each]));
      onModels(models);
    } catch (error) {
      if (!(error instanceof ServiceError)) throw error;
      onError(error);
    }
  }

  function readIfVisible() {
    if (document.visibilityState === "visible") read();
  }

  document.addEventListener("visibilitychange", readIfVisible);
  setInterval(readIfVisible, INTERVAL_SECONDS * 1000);
  read();
  return read;
}

/**
 * @param {Model | undefined} before
 * @returns {Model | undefined} what need not be asked again
 */
function kept(before) {
  return before?.problem === null ? before : undefined;
}

/**
 * @param {string} name
 * @returns {Promise<Model>}
 */
async function model(name) {
  try {
    const { inputs } = await describe(name);
    const [input] = inputs;
    // The first axis is that of the examples.
    const shape = input.shape.slice(1);
    const words = `${input.datatype} ${shape.join(" × ")}`;
    if (shape.length === 2 && input.datatype === "UINT8") {
      return { name, kind: "image", features: 0, input: words, problem: null };
    }
    if (shape.length === 1 && shape[0] > 0 && input.datatype.startsWith("FP")) {
      return { name, kind: "vector", features: shape[0], input: words, problem: null };
    }
    return { name, kind: "other", features: 0, input: words, problem: null };
  } catch (error) {
    if (!(error instanceof ServiceError)) throw error;
    return { name, kind: "other", features: 0, input: "", problem: error.message };
  }
}
