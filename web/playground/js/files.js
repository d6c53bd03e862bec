/** Picture files that people choose, drop anywhere on the page, or paste. */

import { byId } from "./dom.js";
import { formatSize } from "./picture.js";

/** @typedef {import("./picture.js").Picture} Picture */

/**
 * @param {(picture: Picture) => void} onPicture
 * @param {(sentence: string) => void} onProblem
 */
export function watchFiles(onPicture, onProblem) {
  watchFileInput(byId("file", HTMLInputElement), onPicture);
  watchDrops((file) => {
    if (file) onPicture(fromFile(file, true));
    else onProblem("The drop contains no file. Save the picture first, then drop the file.");
  });
  document.addEventListener("paste", (event) => {
    const file = event.clipboardData?.files[0];
    if (file) {
      event.preventDefault();
      onPicture(fromFile(file, false));
    } else if (!(event.target instanceof HTMLInputElement)) {
      onProblem("The clipboard contains no picture.");
    }
  });
}

/**
 * @param {HTMLInputElement} input of type file
 * @param {(picture: Picture) => void} onPicture
 */
export function watchFileInput(input, onPicture) {
  input.addEventListener("change", () => {
    const file = input.files?.[0];
    if (file) onPicture(fromFile(file, true));
    // Without this, choosing the same file again fires no change event.
    input.value = "";
  });
}

/** @param {(file: File | undefined) => void} onDrop called without a file when something else was dropped */
function watchDrops(onDrop) {
  const cover = byId("drop-cover", HTMLElement);
  document.addEventListener("dragenter", (event) => {
    if (event.dataTransfer?.types.includes("Files")) cover.hidden = false;
  });
  // The visible cover fills the page, so leaving the cover means leaving the page.
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
 * @param {boolean} onDisk whether the person has this file under its name; a pasted one may have no file
 * @returns {Picture}
 */
function fromFile(file, onDisk) {
  return { blob: file, name: file.name, caption: `${file.name}, ${formatSize(file.size)}`, onDisk };
}
