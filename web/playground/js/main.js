/**
 * The page: each new picture goes to every image model, and each card shows its model's answer.
 *
 *     file, drop, paste ┐
 *     camera            ├─► picture ──► one card per image model ──► announcement
 *     test images       │                        │
 *     drawing pad       ┘                        └─► code panel
 */

import { watchCamera } from "./camera.js";
import { CodePanel } from "./code_panel.js";
import { byId, part } from "./dom.js";
import { watchFiles } from "./files.js";
import { ImageCard } from "./image_card.js";
import { useKey } from "./key.js";
import { watchModels } from "./models.js";
import { NumbersCard } from "./numbers_card.js";
import { Pad } from "./pad.js";
import { Preview } from "./preview.js";
import { Samples } from "./samples.js";
import { makeTabs } from "./tabs.js";

/** @typedef {import("./api.js").ServiceError} ServiceError */
/** @typedef {import("./code_panel.js").ShownRequest} ShownRequest */
/** @typedef {import("./models.js").Model} Model */
/** @typedef {import("./picture.js").Picture} Picture */

/** The picture of the tab "Picture". */
let chosenPicture = /** @type {Picture | null} */ (null);
/** The picture that the models classify: the chosen picture or the drawing. */
let currentPicture = /** @type {Picture | null} */ (null);
/** Number of the newest picture. Encoding a drawing takes time, and a newer picture makes it obsolete. */
let newestTurn = 0;

/** @type {Map<string, ImageCard | NumbersCard>} */
const cards = new Map();

const announcement = byId("announcement", HTMLElement);
const note = byId("input-note", HTMLElement);
const tabs = { picture: byId("tab-picture", HTMLElement), draw: byId("tab-draw", HTMLElement) };

const preview = new Preview();
const pad = new Pad(classifyDrawing, announce);
const samples = new Samples(choosePicture, showNote);
const code = new CodePanel(shownRequest, announce);
const chooseTab = makeTabs(byId("input-tabs", HTMLElement), showPanel);

watchFiles(choosePicture, showNote);
watchCamera(choosePicture);
const readModels = watchModels(showModels, showUnreachable);
part(byId("unreachable", HTMLElement), "retry", HTMLButtonElement).addEventListener("click", readModels);
byId("key", HTMLFormElement).addEventListener("submit", (event) => {
  event.preventDefault();
  useKey(byId("key-input", HTMLInputElement).value);
  readModels();
});
samples.chooseFirst();

/** @param {Picture} picture */
function choosePicture(picture) {
  chosenPicture = picture;
  preview.show(picture);
  // Choosing the tab classifies its picture.
  if (tabs.picture.ariaSelected === "true") classify(picture, true);
  else chooseTab(tabs.picture);
}

/** @param {boolean} settled false during a stroke */
async function classifyDrawing(settled) {
  if (pad.empty) return;
  newestTurn += 1;
  const turn = newestTurn;
  const blob = await pad.png();
  if (turn === newestTurn) classify({ blob, name: "drawing.png", caption: "Drawing", onDisk: false }, settled);
}

/** @param {HTMLElement} chosenTab */
function showPanel(chosenTab) {
  for (const tab of Object.values(tabs)) {
    byId(tab.getAttribute("aria-controls") ?? "", HTMLElement).hidden = tab !== chosenTab;
  }
  if (chosenTab === tabs.draw) classifyDrawing(true);
  else if (chosenPicture) classify(chosenPicture, true);
}

/**
 * Send a picture to every image model, and announce the answers.
 *
 * @param {Picture} picture
 * @param {boolean} settled false during a stroke of the pen
 */
async function classify(picture, settled) {
  newestTurn += 1;
  currentPicture = picture;
  showNote("");
  samples.mark(picture);
  code.update();
  const answers = await Promise.all(imageCards().map((card) => card.classify(picture, settled)));
  if (currentPicture !== picture) return;
  const modelInput = imageCards().find((card) => card.modelInput)?.modelInput;
  if (modelInput) preview.offerModelInput(picture, modelInput);
  preview.showOutline(picture, imageCards().find((card) => card.outline)?.outline ?? "");
  if (settled) announce(answers.join(" "));
}

/** @param {Model[]} models */
function showModels(models) {
  const service = byId("service", HTMLElement);
  service.dataset.state = "ready";
  part(service, "text", HTMLElement).textContent = models.length === 1 ? "1 model" : `${models.length} models`;
  for (const id of ["unreachable", "key"]) {
    const notice = byId(id, HTMLElement);
    notice.hidden = true;
    part(notice, "text", HTMLElement).textContent = "";
  }
  for (const [name, card] of cards) {
    const model = models.find((each) => each.name === name);
    if (model && isAlike(model, card.model)) {
      card.model = model;
    } else {
      card.element.remove();
      cards.delete(name);
    }
  }
  for (const model of models.filter(({ name }) => !cards.has(name))) addCard(model);
  const lists = { image: byId("image-cards", HTMLElement), numbers: byId("numbers-cards", HTMLElement) };
  lists.image.removeAttribute("aria-busy");
  lists.image.querySelectorAll(".skeleton").forEach((skeleton) => skeleton.remove());
  byId("no-image-models", HTMLElement).hidden = imageCards().length > 0;
  byId("numbers", HTMLElement).hidden = lists.numbers.childElementCount === 0;
  showOthers(models.filter(({ kind }) => kind === "other"));
  const imagesFirst = new Set([...imageCards(), ...cards.values()]);
  code.setModels([...imagesFirst].map(({ model }) => model.name));
}

/**
 * Whether a card for one model fits the other.
 *
 * @param {Model} one
 * @param {Model} other
 */
function isAlike(one, other) {
  return one.kind === other.kind && one.classifies === other.classifies && String(one.shape) === String(other.shape);
}

/** @param {Model} model */
function addCard(model) {
  const openCode = () => code.open(model.name);
  const updateCode = () => code.update();
  if (model.kind === "image") {
    const card = new ImageCard(model, openCode, updateCode);
    cards.set(model.name, card);
    byId("image-cards", HTMLElement).append(card.element);
    if (currentPicture) card.classify(currentPicture, true);
  } else if (model.kind === "numbers") {
    const card = new NumbersCard(model, openCode, updateCode, announce);
    cards.set(model.name, card);
    byId("numbers-cards", HTMLElement).append(card.element);
  }
}

/** @param {Model[]} models those without a card */
function showOthers(models) {
  const others = byId("other-models", HTMLElement);
  const sentences = models.map(
    ({ name, input, problem }) => `${name}: ${problem ?? `takes ${input}; this page has no form for that input.`}`,
  );
  others.hidden = models.length === 0;
  others.textContent = sentences.join(" ");
}

/** @param {ServiceError} error */
function showUnreachable(error) {
  const service = byId("service", HTMLElement);
  service.dataset.state = "unreachable";
  part(service, "text", HTMLElement).textContent = "No answer";
  const keyNeeded = error.status === 401 || error.status === 403;
  const notices = { key: byId("key", HTMLElement), unreachable: byId("unreachable", HTMLElement) };
  notices.key.hidden = !keyNeeded;
  notices.unreachable.hidden = keyNeeded;
  const text = part(keyNeeded ? notices.key : notices.unreachable, "text", HTMLElement);
  // The page reads the list every few seconds, and a screen reader should read the same error once.
  if (text.textContent === error.message) return;
  text.textContent = error.message;
  announce(error.message);
}

/**
 * The request that the code panel shows for a model.
 *
 * @param {string} model
 * @returns {ShownRequest | null} null before the first picture
 */
function shownRequest(model) {
  const card = cards.get(model);
  if (card instanceof NumbersCard) {
    const { example } = card;
    const { classifies } = card.model;
    const type = "application/json";
    return { request: { model, file: "", type, example, classifies, explained: false }, picture: null };
  }
  if (!card || !currentPicture) return null;
  const { name, blob } = currentPicture;
  return {
    request: {
      model,
      file: name,
      type: blob.type,
      example: "",
      classifies: card.model.classifies,
      explained: card.explaining,
    },
    picture: currentPicture,
  };
}

/** @returns {ImageCard[]} */
function imageCards() {
  return [...cards.values()].filter((card) => card instanceof ImageCard);
}

/** @param {string} sentence for screen readers */
function announce(sentence) {
  announcement.textContent = sentence;
}

/** @param {string} sentence why an input was not used; empty clears the note */
function showNote(sentence) {
  note.textContent = sentence;
}
