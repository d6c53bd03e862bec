/** Finding elements of the page, each checked for its kind, so that a misspelt id fails at once and by name. */

/**
 * @template {Element} T
 * @param {string} id
 * @param {new () => T} kind such as `HTMLInputElement`
 * @returns {T}
 */
export function byId(id, kind) {
  return checked(document.getElementById(id), kind, `#${id}`);
}

/**
 * The element with `data-part="name"` inside another.
 *
 * @template {Element} T
 * @param {ParentNode} root
 * @param {string} name
 * @param {new () => T} kind
 * @returns {T}
 */
export function part(root, name, kind) {
  return checked(root.querySelector(`[data-part="${name}"]`), kind, name);
}

/**
 * The first element inside another that a CSS selector finds.
 *
 * @template {Element} T
 * @param {ParentNode} root
 * @param {string} selector
 * @param {new () => T} kind
 * @returns {T}
 */
export function within(root, selector, kind) {
  return checked(root.querySelector(selector), kind, selector);
}

/**
 * A fresh copy of the one element that a `<template>` holds.
 *
 * @param {string} id of the template
 * @returns {HTMLElement}
 */
export function fromTemplate(id) {
  const copy = document.importNode(byId(id, HTMLTemplateElement).content, true);
  return checked(copy.firstElementChild, HTMLElement, id);
}

/**
 * @template {Element} T
 * @param {Element | null} element
 * @param {new () => T} kind
 * @param {string} name
 * @returns {T}
 */
function checked(element, kind, name) {
  if (!(element instanceof kind)) {
    throw new Error(`the page has no ${kind.name} ${name}`);
  }
  return element;
}
