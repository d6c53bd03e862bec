/**
 * The page: pictures come from the sources, every image model is asked, and the cards show what each says.
 *
 *     file, drop, paste ┐
 *     camera            ├─► picture ──► a card for each image model ──► announcement
 *     test images       │                        │
 *     drawing pad       ┘                        └─► lines of code
 */

import { watchCamera } from "./camera.js";
import { CodePanel } from "./code_panel.js";
import { byId, part } from "./dom.js";
import { ImageCard } from "./image_card.js";
import { useKey } from "./key.js";
import { watchModels } from "./models.js";
import { Pad } from "./pad.js";
import { Samples } from "./samples.js";
import { watchFiles } from "./sources.js";
import { Stage } from "./stage.js";
import { makeTabs } from "./tabs.js";
import { VectorCard } from "./vector_card.js";

/** @typedef {import("./api.js").ServiceError} ServiceError */
/** @typedef {import("./models.js").Model} Model */
/** @typedef {import("./picture.js").Picture} Picture */

/** The picture on the stage, and the one that the models are asked about: that one or the drawing. */
let given = /** @type {Picture | null} */ (null);
let asked = /** @type {Picture | null} */ (null);
/** Counts what people give, for a drawing takes a moment to become a file, and may then be no longer the newest. */
let turn = 0;

/** @type {Map<string, ImageCard | VectorCard>} */
const cards = new Map();

const announcement = byId("announcement", HTMLElement);
const note = byId("input-note", HTMLElement);
const tabs = { picture: byId("tab-picture", HTMLElement), draw: byId("tab-draw", HTMLElement) };

const stage = new Stage();
const pad = new Pad(takeDrawing, announce);
const samples = new Samples(takePicture, complain);
const code = new CodePanel(request, announce);
const chooseTab = makeTabs(byId("input-tabs", HTMLElement), showPanel);

watchFiles(takePicture, complain);
watchCamera(takePicture);
const readModels = watchModels(showModels, showUnreachable);
part(byId("unreachable", HTMLElement), "retry", HTMLButtonElement).addEventListener("click", readModels);
byId("key", HTMLFormElement).addEventListener("submit", (event) => {
  event.preventDefault();
  useKey(byId("key-input", HTMLInputElement).value);
  readModels();
});
samples.chooseFirst();

/** @param {Picture} picture */
function takePicture(picture) {
  given = picture;
  stage.show(picture);
  // Choosing the tab asks about its picture.
  if (tabs.picture.ariaSelected === "true") ask(picture, true);
  else chooseTab(tabs.picture);
}

/** @param {boolean} settled */
async function takeDrawing(settled) {
  if (pad.empty) return;
  turn += 1;
  const mine = turn;
  const blob = await pad.png();
  if (mine === turn) ask({ blob, name: "drawing.png", caption: "Drawing", own: false }, settled);
}

/** @param {HTMLElement} tab */
function showPanel(tab) {
  for (const each of Object.values(tabs)) {
    byId(each.getAttribute("aria-controls") ?? "", HTMLElement).hidden = each !== tab;
  }
  if (tab === tabs.draw) takeDrawing(true);
  else if (given) ask(given, true);
}

/**
 * @param {Picture} picture
 * @param {boolean} settled false while it is being drawn
 */
async function ask(picture, settled) {
  turn += 1;
  asked = picture;
  complain("");
  samples.mark(picture);
  code.update();
  const answers = await Promise.all(imageCards().map((card) => card.ask(picture, settled)));
  if (settled && asked === picture) announce(answers.join(" "));
}

/** @param {Model[]} models */
function showModels(models) {
  const service = byId("service", HTMLElement);
  service.dataset.state = "ready";
  part(service, "text", HTMLElement).textContent = models.length === 1 ? "1 model" : `${models.length} models`;
  for (const id of ["unreachable", "key"]) {
    const place = byId(id, HTMLElement);
    place.hidden = true;
    part(place, "text", HTMLElement).textContent = "";
  }
  for (const [name, card] of cards) {
    const model = models.find((each) => each.name === name);
    if (model?.kind === card.model.kind && model.features === card.model.features) {
      card.model = model;
    } else {
      card.element.remove();
      cards.delete(name);
    }
  }
  for (const model of models.filter(({ name }) => !cards.has(name))) add(model);
  const places = { image: byId("image-cards", HTMLElement), vector: byId("vector-cards", HTMLElement) };
  places.image.removeAttribute("aria-busy");
  places.image.querySelectorAll(".skeleton").forEach((skeleton) => skeleton.remove());
  byId("no-image-models", HTMLElement).hidden = imageCards().length > 0;
  byId("vectors", HTMLElement).hidden = places.vector.childElementCount === 0;
  showOthers(models.filter(({ kind }) => kind === "other"));
  const imagesFirst = new Set([...imageCards(), ...cards.values()]);
  code.setModels([...imagesFirst].map(({ model }) => model.name));
}

/** @param {Model} model */
function add(model) {
  const open = () => code.open(model.name);
  const update = () => code.update();
  if (model.kind === "image") {
    const card = new ImageCard(model, open, update);
    cards.set(model.name, card);
    byId("image-cards", HTMLElement).append(card.element);
    if (asked) card.ask(asked, true);
  } else if (model.kind === "vector") {
    const card = new VectorCard(model, open, update, announce);
    cards.set(model.name, card);
    byId("vector-cards", HTMLElement).append(card.element);
  }
}

/** @param {Model[]} models that have no card */
function showOthers(models) {
  const place = byId("other-models", HTMLElement);
  const sentences = models.map(
    ({ name, input, problem }) => `${name}: ${problem ?? `takes ${input}, for which this page has no input.`}`,
  );
  place.hidden = models.length === 0;
  place.textContent = sentences.join(" ");
}

/** @param {ServiceError} error */
function showUnreachable(error) {
  const service = byId("service", HTMLElement);
  service.dataset.state = "gone";
  part(service, "text", HTMLElement).textContent = "No answer";
  const forbidden = error.status === 401 || error.status === 403;
  const places = { key: byId("key", HTMLElement), unreachable: byId("unreachable", HTMLElement) };
  places.key.hidden = !forbidden;
  places.unreachable.hidden = forbidden;
  const text = part(forbidden ? places.key : places.unreachable, "text", HTMLElement);
  // The list is asked for again and again; the same news is told once.
  if (text.textContent === error.message) return;
  text.textContent = error.message;
  announce(error.message);
}

/** @param {string} model */
function request(model) {
  const card = cards.get(model);
  if (card instanceof VectorCard) {
    const { features } = card;
    return { asked: { model, file: "", type: "application/json", features, explained: false }, picture: null };
  }
  if (!card || !asked) return null;
  const { name, blob } = asked;
  return {
    asked: { model, file: name, type: blob.type, features: [], explained: card.explaining },
    picture: asked,
  };
}

/** @returns {ImageCard[]} */
function imageCards() {
  return [...cards.values()].filter((card) => card instanceof ImageCard);
}

/** @param {string} sentence */
function announce(sentence) {
  announcement.textContent = sentence;
}

/** @param {string} sentence what is wrong with what was given; empty to take it back */
function complain(sentence) {
  note.textContent = sentence;
}
