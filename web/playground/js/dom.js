/** Finding elements of the page. Each is checked for its class, so that a misspelled id fails at once, with its name. */

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
 * The first element inside another that matches a CSS selector.
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
 * A new copy of the only element in a `<template>`.
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
