/** Files that people choose, drop anywhere on the page, or paste. */

import { byId } from "./dom.js";
import { sizeInWords } from "./picture.js";

/** @typedef {import("./picture.js").Picture} Picture */

/**
 * @param {(picture: Picture) => void} onPicture
 * @param {(sentence: string) => void} onProblem
 */
export function watchFiles(onPicture, onProblem) {
  watchChoice(byId("file", HTMLInputElement), onPicture);
  watchDrops((file) => {
    if (file) onPicture(fromFile(file, true));
    else onProblem("That holds no file; save the picture first, then drop the file.");
  });
  document.addEventListener("paste", (event) => {
    const file = event.clipboardData?.files[0];
    if (file) {
      event.preventDefault();
      onPicture(fromFile(file, false));
    } else if (!(event.target instanceof HTMLInputElement)) {
      onProblem("The clipboard holds no picture.");
    }
  });
}

/**
 * @param {HTMLInputElement} input of type file
 * @param {(picture: Picture) => void} onPicture
 */
export function watchChoice(input, onPicture) {
  input.addEventListener("change", () => {
    const file = input.files?.[0];
    if (file) onPicture(fromFile(file, true));
    // Otherwise choosing the same file again would be no change.
    input.value = "";
  });
}

/** @param {(file: File | undefined) => void} onDrop called without a file where something else was dropped */
function watchDrops(onDrop) {
  const cover = byId("drop-cover", HTMLElement);
  document.addEventListener("dragenter", (event) => {
    if (event.dataTransfer?.types.includes("Files")) cover.hidden = false;
  });
  // While the cover is shown it lies over all else, so that leaving it is leaving the page.
  cover.addEventListener("dragleave", () => (cover.hidden = true));
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    cover.hidden = true;
    onDrop(event.dataTransfer?.files[0]);
  });
}

/**
 * @param {File} file
 * @param {boolean} own whether it lies on the person's disk under its name; what is pasted may not
 * @returns {Picture}
 */
function fromFile(file, own) {
  return { blob: file, name: file.name, caption: `${file.name}, ${sizeInWords(file.size)}`, own };
}
