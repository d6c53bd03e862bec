/** The API key, for services that require one: kept in this tab only, until the tab is closed. */

const STORAGE_NAME = "fashion-serve-key";

/**
 * The header with the key; empty without a key.
 *
 * @returns {Record<string, string>}
 */
export function keyHeaders() {
  const key = sessionStorage.getItem(STORAGE_NAME);
  return key ? { Authorization: `Bearer ${key}` } : {};
}

/** @returns {boolean} whether requests carry a key */
export function hasKey() {
  return sessionStorage.getItem(STORAGE_NAME) !== null;
}

/** @param {string} key */
export function useKey(key) {
  sessionStorage.setItem(STORAGE_NAME, key.trim());
}
