/** A row of tabs with the arrow keys of the ARIA Authoring Practices. */

/**
 * @param {HTMLElement} list the element with the role `tablist`, which contains the tabs
 * @param {(tab: HTMLElement) => void} onChoice called when another tab is chosen
 * @returns {(tab: HTMLElement) => void} function that chooses a tab
 */
export function makeTabs(list, onChoice) {
  const tabs = () => /** @type {HTMLElement[]} */ ([...list.querySelectorAll("[role=tab]")]);

  /** @param {HTMLElement} tab */
  function choose(tab) {
    if (tab.getAttribute("aria-selected") === "true") return;
    for (const each of tabs()) {
      each.setAttribute("aria-selected", String(each === tab));
      each.tabIndex = each === tab ? 0 : -1;
    }
    onChoice(tab);
  }

  list.addEventListener("click", (event) => {
    const tab = event.target instanceof Element ? event.target.closest("[role=tab]") : null;
    if (tab instanceof HTMLElement) choose(tab);
  });

  list.addEventListener("keydown", (event) => {
    const all = tabs();
    const index = all.indexOf(/** @type {HTMLElement} */ (document.activeElement));
    /** @type {Record<string, number>} */
    const moves = { ArrowRight: index + 1, ArrowLeft: index - 1, Home: 0, End: -1 };
    const tab = event.key in moves && all.at(moves[event.key] % all.length);
    if (!tab) return;
    event.preventDefault();
    tab.focus();
    choose(tab);
  });

  return choose;
}
