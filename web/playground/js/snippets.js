/** The lines that repeat a request with curl, with the Python client, with requests, or with JavaScript. */

import { address } from "./api.js";
import { hasKey } from "./key.js";

/**
 * What to repeat: a picture in a file, or numbers.
 *
 * @typedef {object} Asked
 * @property {string} model
 * @property {string} file name of the picture's file; empty for numbers
 * @property {string} type the request's content type; empty where nobody knows
 * @property {number[]} features of a vector model
 * @property {boolean} explained whether the heat map was asked for as well
 */

/** @type {ReadonlyArray<[title: string, write: (asked: Asked) => string]>} */
export const LANGUAGES = [
  ["curl", curl],
  ["Python", python],
  ["requests", requests],
  ["JavaScript", javascript],
];

/** The variable that the lines take an API key from; the client reads it by itself. */
const KEY = "FASHION_API_KEY";

/**
 * @param {Asked} asked
 * @returns {string}
 */
function curl(asked) {
  const key = hasKey() ? [`-H "Authorization: Bearer $${KEY}"`] : [];
  // Without a content type of its own curl would say that the body is a form.
  const type = `-H ${shell(`Content-Type:${asked.type && ` ${asked.type}`}`)}`;
  const body = asked.file !== "" ? `--data-binary ${shell(`@${asked.file}`)}` : `--data ${shell(list(asked))}`;
  /** @param {string[]} pieces */
  const command = (...pieces) => pieces.join(" \\\n  ");
  const predict = command(`curl ${shell(predictions(asked))}`, ...key, type, body);
  if (!asked.explained) return predict;
  const accept = `-H ${shell("Accept: image/png")}`;
  const output = "--output heat-map.png";
  return `${predict}\n\n${command(`curl ${shell(explanations(asked))}`, ...key, type, accept, body, output)}`;
}

/**
 * @param {Asked} asked
 * @returns {string}
 */
function python(asked) {
  const isPicture = asked.file !== "";
  const example = isPicture ? text(asked.file) : `np.array(${list(asked)}, np.float32)`;
  const given = `${example}, model=${text(asked.model)}`;
  return lines(
    asked.explained && "from pathlib import Path",
    asked.explained && "",
    !isPicture && "import numpy as np",
    !isPicture && "",
    "from fashion_client import FashionClient",
    "",
    `with FashionClient(${text(root())}) as client:`,
    `    prediction = client.predict(${given})`,
    "    print(prediction.label, prediction.probability)",
    asked.explained && `    Path("heat-map.png").write_bytes(client.heat_map(${given}))`,
  );
}

/**
 * @param {Asked} asked
 * @returns {string}
 */
function requests(asked) {
  const key = hasKey() && `"Authorization": "Bearer " + os.environ["${KEY}"]`;
  const isPicture = asked.file !== "";
  const type = asked.type !== "" && isPicture && `"Content-Type": ${text(asked.type)}`;
  /** @param {Array<string | false>} fields */
  const headers = (...fields) => {
    const some = fields.filter(Boolean);
    return some.length > 0 && `    headers={${some.join(", ")}},`;
  };
  const body = isPicture ? "    data=picture," : `    json=${list(asked)},`;
  return lines(
    key && "import os",
    isPicture && "from pathlib import Path",
    (key !== false || isPicture) && "",
    "import requests",
    "",
    isPicture && `picture = Path(${text(asked.file)}).read_bytes()`,
    "answer = requests.post(",
    `    ${text(predictions(asked))},`,
    body,
    headers(type, key),
    "    timeout=30,",
    ")",
    "answer.raise_for_status()",
    "print(answer.json())",
    ...(asked.explained
      ? [
          "",
          "heat_map = requests.post(",
          `    ${text(explanations(asked))},`,
          body,
          headers('"Accept": "image/png"', type, key),
          "    timeout=30,",
          ")",
          "heat_map.raise_for_status()",
          'Path("heat-map.png").write_bytes(heat_map.content)',
        ]
      : []),
  );
}

/**
 * For Node.js 18 and later, Deno and Bun.
 *
 * @param {Asked} asked
 * @returns {string}
 */
function javascript(asked) {
  const key = hasKey() && `Authorization: \`Bearer \${process.env.${KEY}}\``;
  const isPicture = asked.file !== "";
  const type = asked.type !== "" && `"Content-Type": ${text(asked.type)}`;
  /** @param {Array<string | false>} fields */
  const headers = (...fields) => {
    const some = fields.filter(Boolean);
    return some.length > 0 && `  headers: { ${some.join(", ")} },`;
  };
  const body = isPicture ? "  body: picture," : `  body: JSON.stringify(${list(asked)}),`;
  return lines(
    isPicture && `import { readFile${asked.explained ? ", writeFile" : ""} } from "node:fs/promises";`,
    isPicture && "",
    isPicture && `const picture = await readFile(${text(asked.file)});`,
    `const answer = await fetch(${text(predictions(asked))}, {`,
    '  method: "POST",',
    headers(type, key),
    body,
    "});",
    "console.log(await answer.json());",
    ...(asked.explained
      ? [
          "",
          `const heatMap = await fetch(${text(explanations(asked))}, {`,
          '  method: "POST",',
          headers('Accept: "image/png"', type, key),
          body,
          "});",
          'await writeFile("heat-map.png", new Uint8Array(await heatMap.arrayBuffer()));',
        ]
      : []),
  );
}

/** @returns {string} the service's address, without a slash at its end */
function root() {
  return new URL(".", document.baseURI).href.replace(/\/$/, "");
}

/** @param {Asked} asked */
function predictions({ model }) {
  return address("predictions", model).href;
}

/** @param {Asked} asked */
function explanations({ model }) {
  return address("explanations", model).href;
}

/** @param {Asked} asked */
function list({ features }) {
  return `[${features.join(", ")}]`;
}

/**
 * A string literal of Python and JavaScript alike.
 *
 * @param {string} value
 * @returns {string}
 */
function text(value) {
  return JSON.stringify(value);
}

/**
 * A word of a POSIX shell, quoted where it has to be.
 *
 * @param {string} value
 * @returns {string}
 */
function shell(value) {
  return /^[\w@%+=:,./-]+$/.test(value) ? value : `'${value.replaceAll("'", "'\\''")}'`;
}

/**
 * @param {Array<string | false>} written lines; false ones are left out
 * @returns {string}
 */
function lines(...written) {
  return written.filter((line) => line !== false).join("\n");
}
