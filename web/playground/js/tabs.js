/** A row of tabs, moved through with arrow keys as the ARIA authoring practices describe. */

/**
 * @param {HTMLElement} list the element with the role `tablist`, its tabs in it
 * @param {(tab: HTMLElement) => void} onChoice called when another tab is chosen
 * @returns {(tab: HTMLElement) => void} chooses a tab
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
    const place = all.indexOf(/** @type {HTMLElement} */ (document.activeElement));
    /** @type {Record<string, number>} */
    const moves = { ArrowRight: place + 1, ArrowLeft: place - 1, Home: 0, End: -1 };
    const tab = event.key in moves && all.at(moves[event.key] % all.length);
    if (!tab) return;
    event.preventDefault();
    tab.focus();
    choose(tab);
  });

  return choose;
}
