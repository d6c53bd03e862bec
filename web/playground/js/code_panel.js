/** The panel with the lines that repeat a request: which model, which language, copying, the picture to go with it. */

import { byId, part } from "./dom.js";
import { LANGUAGES } from "./snippets.js";
import { makeTabs } from "./tabs.js";

/** @typedef {import("./picture.js").Picture} Picture */
/** @typedef {import("./snippets.js").Asked} Asked */

/**
 * The request that a model's card stands for now.
 *
 * @typedef {object} Request
 * @property {Asked} asked
 * @property {Picture | null} picture
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
  #write = LANGUAGES[0][1];
  #request;

  /**
   * @param {(model: string) => Request | null} request what to repeat; null where nothing was asked yet
   * @param {(sentence: string) => void} announce
   */
  constructor(request, announce) {
    this.#request = request;
    this.#addTabs();
    this.#model.addEventListener("change", () => this.update());
    this.#copy.addEventListener("click", async () => announce(await this.#copied()));
    // The saved file is made when it is asked for, so that none has to be kept.
    this.#save.addEventListener("click", () => this.#offer());
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

  /** Write the lines anew. */
  update() {
    const request = this.#request(this.#model.value);
    this.#root.hidden = request === null;
    if (!request) return;
    const { asked, picture } = request;
    this.#code.textContent = this.#write(asked);
    this.#file.hidden = picture === null;
    if (!picture) return;
    const where = picture.own ? "Run it in the folder that holds" : "It reads the picture from";
    part(this.#file, "text", HTMLElement).textContent = `${where} ${picture.name}.`;
    this.#save.hidden = picture.own;
  }

  #addTabs() {
    const tabs = LANGUAGES.map(([title, write], place) => {
      const tab = document.createElement("button");
      tab.type = "button";
      tab.role = "tab";
      tab.id = `code-tab-${place}`;
      tab.textContent = title;
      tab.setAttribute("aria-controls", this.#panel.id);
      tab.setAttribute("aria-selected", String(place === 0));
      tab.tabIndex = place === 0 ? 0 : -1;
      return /** @type {const} */ ([tab, write]);
    });
    this.#tabs.append(...tabs.map(([tab]) => tab));
    const writers = new Map(tabs);
    this.#panel.setAttribute("aria-labelledby", tabs[0][0].id);
    makeTabs(this.#tabs, (tab) => {
      this.#write = writers.get(/** @type {HTMLButtonElement} */ (tab)) ?? this.#write;
      this.#panel.setAttribute("aria-labelledby", tab.id);
      this.update();
    });
  }

  /** @returns {Promise<string>} what happened, as a sentence */
  async #copied() {
    try {
      await navigator.clipboard.writeText(this.#code.textContent ?? "");
    } catch {
      // Pages without TLS have no clipboard, and people may forbid it.
      getSelection()?.selectAllChildren(this.#code);
      return "The code is selected; copy it with your keyboard.";
    }
    this.#copy.textContent = "Copied";
    setTimeout(() => (this.#copy.textContent = "Copy"), 2000);
    return "Copied";
  }

  #offer() {
    const picture = this.#request(this.#model.value)?.picture;
    if (!picture) return;
    URL.revokeObjectURL(this.#save.href);
    this.#save.href = URL.createObjectURL(picture.blob);
    this.#save.download = picture.name;
  }
}
