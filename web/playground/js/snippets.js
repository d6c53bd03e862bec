/** Code that repeats a request: with curl, the Python client, requests, or JavaScript. */

import { apiUrl } from "./api.js";
import { hasKey } from "./key.js";

/**
 * The request to repeat, with a picture file or with numbers.
 *
 * @typedef {object} RequestToRepeat
 * @property {string} model
 * @property {string} file name of the picture file; empty for numbers
 * @property {string} type the content type; empty if it is unknown
 * @property {string} example numbers as JSON
 * @property {boolean} classifies whether the answer has labels
 * @property {boolean} explained whether to request the heat map too
 */

/** @type {ReadonlyArray<[title: string, snippet: (request: RequestToRepeat) => string]>} */
export const LANGUAGES = [
  ["curl", curl],
  ["Python", python],
  ["requests", requests],
  ["JavaScript", javascript],
];

/** The environment variable with the API key; the Python client reads it by itself. */
const KEY_VARIABLE = "FASHION_API_KEY";

/**
 * @param {RequestToRepeat} request
 * @returns {string}
 */
function curl(request) {
  const key = hasKey() ? [`-H "Authorization: Bearer $${KEY_VARIABLE}"`] : [];
  // Without this header curl declares the body to be a form.
  const type = `-H ${shell(`Content-Type:${request.type && ` ${request.type}`}`)}`;
  const body = request.file !== "" ? `--data-binary ${shell(`@${request.file}`)}` : `--data ${shell(request.example)}`;
  /** @param {string[]} pieces */
  const command = (...pieces) => pieces.join(" \\\n  ");
  const predict = command(`curl ${shell(predictions(request))}`, ...key, type, body);
  if (!request.explained) return predict;
  const accept = `-H ${shell("Accept: image/png")}`;
  const output = "--output heat-map.png";
  return `${predict}\n\n${command(`curl ${shell(explanations(request))}`, ...key, type, accept, body, output)}`;
}

/**
 * @param {RequestToRepeat} request
 * @returns {string}
 */
function python(request) {
  if (!request.classifies) return `# The client is for models that classify; this one returns numbers.\n${requests(request)}`;
  const isPicture = request.file !== "";
  const example = isPicture ? text(request.file) : `np.array(${request.example}, np.float32)`;
  const argumentList = `${example}, model=${text(request.model)}`;
  return lines(
    request.explained && "from pathlib import Path",
    request.explained && "",
    !isPicture && "import numpy as np",
    !isPicture && "",
    "from fashion_client import FashionClient",
    "",
    `with FashionClient(${text(serviceUrl())}) as client:`,
    `    prediction = client.predict(${argumentList})`,
    "    print(prediction.label, prediction.probability)",
    request.explained && `    Path("heat-map.png").write_bytes(client.heat_map(${argumentList}))`,
  );
}

/**
 * @param {RequestToRepeat} request
 * @returns {string}
 */
function requests(request) {
  const key = hasKey() && `"Authorization": "Bearer " + os.environ["${KEY_VARIABLE}"]`;
  const isPicture = request.file !== "";
  const type = request.type !== "" && isPicture && `"Content-Type": ${text(request.type)}`;
  /** @param {Array<string | false>} fields */
  const headers = (...fields) => {
    const present = fields.filter(Boolean);
    return present.length > 0 && `    headers={${present.join(", ")}},`;
  };
  const body = isPicture ? "    data=picture," : `    json=${request.example},`;
  return lines(
    key && "import os",
    isPicture && "from pathlib import Path",
    (key !== false || isPicture) && "",
    "import requests",
    "",
    isPicture && `picture = Path(${text(request.file)}).read_bytes()`,
    "answer = requests.post(",
    `    ${text(predictions(request))},`,
    body,
    headers(type, key),
    "    timeout=30,",
    ")",
    "answer.raise_for_status()",
    "print(answer.json())",
    ...(request.explained
      ? [
          "",
          "heat_map = requests.post(",
          `    ${text(explanations(request))},`,
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
 * Code for Node.js 18 and later, Deno and Bun.
 *
 * @param {RequestToRepeat} request
 * @returns {string}
 */
function javascript(request) {
  const key = hasKey() && `Authorization: \`Bearer \${process.env.${KEY_VARIABLE}}\``;
  const isPicture = request.file !== "";
  const type = request.type !== "" && `"Content-Type": ${text(request.type)}`;
  /** @param {Array<string | false>} fields */
  const headers = (...fields) => {
    const present = fields.filter(Boolean);
    return present.length > 0 && `  headers: { ${present.join(", ")} },`;
  };
  const body = isPicture ? "  body: picture," : `  body: JSON.stringify(${request.example}),`;
  return lines(
    isPicture && `import { readFile${request.explained ? ", writeFile" : ""} } from "node:fs/promises";`,
    isPicture && "",
    isPicture && `const picture = await readFile(${text(request.file)});`,
    `const answer = await fetch(${text(predictions(request))}, {`,
    '  method: "POST",',
    headers(type, key),
    body,
    "});",
    "console.log(await answer.json());",
    ...(request.explained
      ? [
          "",
          `const heatMap = await fetch(${text(explanations(request))}, {`,
          '  method: "POST",',
          headers('Accept: "image/png"', type, key),
          body,
          "});",
          'await writeFile("heat-map.png", new Uint8Array(await heatMap.arrayBuffer()));',
        ]
      : []),
  );
}

/** @returns {string} the service's URL without a trailing slash */
function serviceUrl() {
  return new URL(".", document.baseURI).href.replace(/\/$/, "");
}

/** @param {RequestToRepeat} request */
function predictions({ model }) {
  return apiUrl("predictions", model).href;
}

/** @param {RequestToRepeat} request */
function explanations({ model }) {
  return apiUrl("explanations", model).href;
}

/**
 * A string literal in both Python and JavaScript.
 *
 * @param {string} value
 * @returns {string}
 */
function text(value) {
  return JSON.stringify(value);
}

/**
 * A word of a POSIX shell, quoted if necessary.
 *
 * @param {string} value
 * @returns {string}
 */
function shell(value) {
  return /^[\w@%+=:,./-]+$/.test(value) ? value : `'${value.replaceAll("'", "'\\''")}'`;
}

/**
 * @param {Array<string | false>} entries lines of code; `false` is left out
 * @returns {string}
 */
function lines(...entries) {
  return entries.filter((line) => line !== false).join("\n");
}
