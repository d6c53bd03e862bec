"""Faults of a page's layout: elements that overlap or overflow others, at many widths of the window."""

from __future__ import annotations

from playwright.sync_api import Page

WIDTHS_PX = (320, 360, 390, 480, 600, 768, 960, 1024, 1100, 1200, 1300, 1440, 1920)
# Elements in the flow of the page lie inside their parent and beside their siblings, and hold their own text. Left out:
# what is placed over the page on purpose (positioned elements), scrolls or is cut by its parent (overflow), is a line's
# part (inline), or is not shown.
FAULTS = """() => {
    const TOLERANCE_PX = 1;
    const box = element => element.getBoundingClientRect();
    const style = element => getComputedStyle(element);
    const inFlow = element => {
        const { position, display, visibility } = style(element);
        const { width, height } = box(element);
        return ["static", "relative", "sticky"].includes(position)
            && !["inline", "contents", "none", "table-column-group"].includes(display)
            && visibility === "visible" && width > 1 && height > 1;
    };
    const name = element => `${element.tagName.toLowerCase()}#${element.id}.${element.className}`;
    const faults = [];
    for (const parent of document.body.querySelectorAll("*")) {
        if (parent.closest("svg") || !inFlow(parent)) continue;
        const children = [...parent.children].filter(child => child.localName !== "svg" && inFlow(child));
        const outer = box(parent);
        const clips = style(parent).overflowX !== "visible";
        if (!clips && parent.scrollWidth > parent.clientWidth + TOLERANCE_PX && parent.clientWidth)
            faults.push(`${name(parent)} is ${parent.scrollWidth} px wide inside ${parent.clientWidth}`);
        if (clips) continue;
        const isText = [...parent.childNodes].some(node => node.nodeType === Node.TEXT_NODE && node.data.trim());
        if (isText) {
            const range = document.createRange();
            range.selectNodeContents(parent);
            const { left, right } = range.getBoundingClientRect();
            const padding = Math.min(parseFloat(style(parent).paddingLeft), parseFloat(style(parent).paddingRight));
            const least = Math.min(padding, 4) - TOLERANCE_PX;
            if (left < outer.left + least || right > outer.right - least)
                faults.push(`the text of ${name(parent)} touches its edge: ${parent.textContent.trim().slice(0, 40)}`);
        }
        children.forEach((child, index) => {
            const inner = box(child);
            if (inner.left < outer.left - TOLERANCE_PX || inner.right > outer.right + TOLERANCE_PX
                || inner.top < outer.top - TOLERANCE_PX || inner.bottom > outer.bottom + TOLERANCE_PX)
                faults.push(`${name(child)} overflows ${name(parent)}`);
            for (const other of children.slice(index + 1)) {
                const beside = box(other);
                const across = Math.min(inner.right, beside.right) - Math.max(inner.left, beside.left);
                const down = Math.min(inner.bottom, beside.bottom) - Math.max(inner.top, beside.top);
                if (across > TOLERANCE_PX && down > TOLERANCE_PX) faults.push(`${name(child)} overlaps ${name(other)}`);
            }
        });
    }
    return faults;
}"""


def faults(page: Page) -> dict[int, list[str]]:
    """The faults of the page by width of the window, in pixels; only widths that have any."""
    findings = {}
    for width in WIDTHS_PX:
        page.set_viewport_size({"width": width, "height": 900})
        if evaluated := page.evaluate(FAULTS):
            findings[width] = evaluated
    return findings
