/** The panel with code that repeats a request: a model, a language, a copy button, and the picture to save. */

import { byId, part } from "./dom.js";
import { LANGUAGES } from "./snippets.js";
import { makeTabs } from "./tabs.js";

/** @typedef {import("./picture.js").Picture} Picture */
/** @typedef {import("./snippets.js").RequestToRepeat} RequestToRepeat */

/**
 * The request of a model's card, and its picture.
 *
 * @typedef {object} ShownRequest
 * @property {RequestToRepeat} request
 * @property {Picture | null} picture null for a model of numbers
 */

export class CodePanel {
  #root = byId("code", HTMLElement);
  #model = byId("code-model", HTMLSelectElement);
  #tabs = byId("code-tabs", HTMLElement);
  #panel = byId("code-panel", HTMLElement);
  #code = byId("code-text", HTMLElement);
  #copy = byId("code-copy", HTMLButtonElement);
  #file = byId("code-file", HTMLElement);
  #save = part(this.#file, "save", HTMLAnchorElement);
  #snippet = LANGUAGES[0][1];
  #shownRequest;

  /**
   * @param {(model: string) => ShownRequest | null} shownRequest the request to repeat; null before the first picture
   * @param {(sentence: string) => void} announce
   */
  constructor(shownRequest, announce) {
    this.#shownRequest = shownRequest;
    this.#addTabs();
    this.#model.addEventListener("change", () => this.update());
    this.#copy.addEventListener("click", async () => announce(await this.#copyCode()));
    // The link gets its file on the click, so that the page keeps no file in memory.
    this.#save.addEventListener("click", () => this.#linkPicture());
  }

  /** @param {string[]} names of the models to choose from */
  setModels(names) {
    const chosen = this.#model.value;
    this.#model.replaceChildren(...names.map((name) => new Option(name)));
    if (names.includes(chosen)) this.#model.value = chosen;
    this.update();
  }

  /**
   * Choose a model and bring the panel into view.
   *
   * @param {string} model
   */
  open(model) {
    this.#model.value = model;
    this.update();
    this.#root.focus({ preventScroll: true });
    this.#root.scrollIntoView({ block: "nearest" });
  }

  /** Show the code of the current request. */
  update() {
    const shown = this.#shownRequest(this.#model.value);
    this.#root.hidden = shown === null;
    if (!shown) return;
    const { request, picture } = shown;
    this.#code.textContent = this.#snippet(request);
    this.#file.hidden = picture === null;
    if (!picture) return;
    const instruction = picture.onDisk ? "Run it in the folder that contains" : "It reads the picture from";
    part(this.#file, "text", HTMLElement).textContent = `${instruction} ${picture.name}.`;
    this.#save.hidden = picture.onDisk;
  }

  #addTabs() {
    const tabs = LANGUAGES.map(([title, snippet], index) => {
      const tab = document.createElement("button");
      tab.type = "button";
      tab.role = "tab";
      tab.id = `code-tab-${index}`;
      tab.textContent = title;
      tab.setAttribute("aria-controls", this.#panel.id);
      tab.setAttribute("aria-selected", String(index === 0));
      tab.tabIndex = index === 0 ? 0 : -1;
      return /** @type {const} */ ([tab, snippet]);
    });
    this.#tabs.append(...tabs.map(([tab]) => tab));
    const snippets = new Map(tabs);
    this.#panel.setAttribute("aria-labelledby", tabs[0][0].id);
    makeTabs(this.#tabs, (tab) => {
      this.#snippet = snippets.get(/** @type {HTMLButtonElement} */ (tab)) ?? this.#snippet;
      this.#panel.setAttribute("aria-labelledby", tab.id);
      this.update();
    });
  }

  /** @returns {Promise<string>} the result, as a sentence */
  async #copyCode() {
    try {
      await navigator.clipboard.writeText(this.#code.textContent ?? "");
    } catch {
      // Pages without HTTPS have no clipboard, and people can forbid it.
      getSelection()?.selectAllChildren(this.#code);
      return "The code is selected; copy it with your keyboard.";
    }
    this.#copy.textContent = "Copied";
    setTimeout(() => (this.#copy.textContent = "Copy"), 2000);
    return "Copied";
  }

  #linkPicture() {
    const picture = this.#shownRequest(this.#model.value)?.picture;
    if (!picture) return;
    URL.revokeObjectURL(this.#save.href);
    this.#save.href = URL.createObjectURL(picture.blob);
    this.#save.download = picture.name;
  }
}
