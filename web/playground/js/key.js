/** The API key, where the service asks for one: kept for this tab alone, and until it is closed. */

const NAME = "fashion-serve-key";

/**
 * The header that carries the key; empty without one.
 *
 * @returns {Record<string, string>}
 */
export function keyHeaders() {
  const key = sessionStorage.getItem(NAME);
  return key ? { Authorization: `Bearer ${key}` } : {};
}

/** @returns {boolean} whether requests carry a key */
export function hasKey() {
  return sessionStorage.getItem(NAME) !== null;
}

/** @param {string} key */
export function useKey(key) {
  sessionStorage.setItem(NAME, key.trim());
}
