/** The service's models and their inputs, polled so that a new model appears without a reload. */

import { ServiceError, describe, modelNames } from "./api.js";

/** Deployments are rare, so a new model may appear up to this much later. */
const POLL_INTERVAL_S = 15;

/**
 * @typedef {object} Model
 * @property {string} name
 * @property {"image" | "numbers" | "other"} kind
 * @property {number[]} shape of one example
 * @property {boolean} classifies whether its answers are labels, and not plain numbers
 * @property {string} input datatype and shape of its input, such as `FP32 4`
 * @property {string} version the live version; empty if there are several
 * @property {boolean} hasNovelty whether it can answer with an out-of-distribution score
 * @property {string | null} problem why its description could not be read, as a sentence
 */

/**
 * Read the models now, each time the tab becomes visible, and every few seconds while it is visible.
 *
 * @param {(models: Model[]) => void} onModels called after each reading, with all models
 * @param {(error: ServiceError) => void} onError called when the list could not be read
 * @returns {() => Promise<void>} reads at once
 */
export function watchModels(onModels, onError) {
  /** @type {Map<string, Model>} */
  let known = new Map();
  /** @type {Promise<void> | null} */
  let reading = null;

  function read() {
    // One reading at a time: of two, the older one could finish last.
    reading ??= readNow().finally(() => (reading = null));
    return reading;
  }

  async function readNow() {
    try {
      const names = await modelNames();
      const models = await Promise.all(names.map((name) => readModel(name, known.get(name))));
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
  setInterval(readIfVisible, POLL_INTERVAL_S * 1000);
  read();
  return read;
}

/**
 * @param {string} name
 * @param {Model | undefined} previous its last description, which stays valid while the service cannot answer
 * @returns {Promise<Model>}
 */
async function readModel(name, previous) {
  try {
    const { inputs, outputs, versions = [] } = await describe(name);
    const [input] = inputs;
    const classifies = outputs.some((output) => output.name === "probabilities");
    // Axis 0 counts the examples.
    const shape = input.shape.slice(1);
    const kind = kindOf(input.datatype, shape);
    const version = versions.length === 1 ? versions[0] : "";
    const hasNovelty = outputs.some((output) => output.name === "ood");
    const described = `${input.datatype} ${shape.join(" × ")}`;
    return { name, kind, shape, classifies, input: described, version, hasNovelty, problem: null };
  } catch (error) {
    if (!(error instanceof ServiceError)) throw error;
    const unknown = { shape: [], classifies: true, input: "", version: "", hasNovelty: false };
    return previous ?? { name, kind: "other", ...unknown, problem: error.message };
  }
}

/**
 * @param {string} datatype
 * @param {number[]} shape of one example
 * @returns {Model["kind"]}
 */
function kindOf(datatype, shape) {
  if ((shape.length === 2 || shape.length === 3) && datatype === "UINT8") return "image";
  if (shape.length > 0 && shape.every((length) => length > 0) && datatype.startsWith("FP")) return "numbers";
  return "other";
}
