/** Which models the service has, and what each takes: read from the service, so that a new one appears by itself. */

import { ServiceError, describe, modelNames } from "./api.js";

const INTERVAL_SECONDS = 15;

/**
 * @typedef {object} Model
 * @property {string} name
 * @property {"image" | "vector" | "other"} kind
 * @property {number} features how many numbers a vector model takes
 * @property {string} input its input in words, such as `FP32 4`
 * @property {string} version the one that is served; empty where there are several
 * @property {string | null} problem why it could not be described, as a sentence
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
  /** @type {Promise<void> | null} */
  let reading = null;

  function read() {
    // Two at once might end in the wrong order.
    reading ??= readNow().finally(() => (reading = null));
    return reading;
  }

  async function readNow() {
    try {
      const names = await modelNames();
      const models = await Promise.all(names.map((name) => model(name, known.get(name))));
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
 * @param {string} name
 * @param {Model | undefined} before what is known of it, which holds while the service cannot say
 * @returns {Promise<Model>}
 */
async function model(name, before) {
  try {
    const { inputs, versions = [] } = await describe(name);
    const [input] = inputs;
    // The first axis is that of the examples.
    const shape = input.shape.slice(1);
    const kind = kindOf(input.datatype, shape);
    const features = kind === "vector" ? shape[0] : 0;
    const version = versions.length === 1 ? versions[0] : "";
    return { name, kind, features, input: `${input.datatype} ${shape.join(" × ")}`, version, problem: null };
  } catch (error) {
    if (!(error instanceof ServiceError)) throw error;
    return before ?? { name, kind: "other", features: 0, input: "", version: "", problem: error.message };
  }
}

/**
 * @param {string} datatype
 * @param {number[]} shape of one example
 * @returns {Model["kind"]}
 */
function kindOf(datatype, shape) {
  if (shape.length === 2 && datatype === "UINT8") return "image";
  if (shape.length === 1 && shape[0] > 0 && datatype.startsWith("FP")) return "vector";
  return "other";
}
