/**
 * Whether a person could see something: what can be asked of a browser, and when its answers can't be believed.
 *
 * `visibilityState` is "visible" also in frames that are covered, off the screen or `display: none`. An
 * IntersectionObserver knows the last two; in Firefox its callback never comes in a `display: none` frame, so what it
 * has not said counts as no. What covers an element, or makes it inert (a modal dialog), shows in a hit test.
 *
 * Version 2 of the observer would also know what covers a frame from outside. But it says "not visible" for a sticky
 * header one pixel over the frame's edge, and alerts that are never shown are worse than one too many that counts.
 */

export const FRAMED = (() => {
  try {
    return globalThis.top !== undefined && globalThis.top !== globalThis.self;
  } catch {
    return true; // a foreign page around us, in a browser that throws at the question
  }
})();

/** Which elements are on the screen, as far as the pages around a frame are concerned. */
export class InView {
  /** @type {WeakSet<Element>} */
  #inView = new WeakSet();
  #observer;

  /** @param {() => void} onchange */
  constructor(onchange = () => {}) {
    // A page of its own is on the screen where it is visible; no observer is needed for that.
    if (!FRAMED || typeof IntersectionObserver === "undefined") return;
    this.#observer = new IntersectionObserver(
      (entries) => {
        for (const { target, isIntersecting } of entries) {
          if (isIntersecting) this.#inView.add(target);
          else this.#inView.delete(target);
        }
        onchange();
      },
    );
  }

  /** @param {Element} element */
  watch(element) {
    this.#observer?.observe(element);
  }

  /** @param {Element} element */
  forget(element) {
    this.#observer?.unobserve(element);
  }

  /** @param {Element} element */
  has(element) {
    return !this.#observer || (this.#inView.has(element) && isFrameVisible());
  }

  close() {
    this.#observer?.disconnect();
  }
}

/** It has a size, and is neither hidden nor transparent, as far as pages of our own origin are around us. */
function isFrameVisible() {
  if (innerWidth === 0 || innerHeight === 0) return false;
  try {
    for (let page = window; page.frameElement; page = /** @type {Window & typeof globalThis} */ (page.parent)) {
      if (page.frameElement.checkVisibility?.({ visibilityProperty: true, opacityProperty: true }) === false) return false;
    }
  } catch {
    // a foreign page
  }
  return true;
}

/** Whether its middle is in the window and nothing lies over it. @param {Element} element */
export function isUncovered(element) {
  const { left, top, width, height } = element.getBoundingClientRect();
  if (width === 0 || height === 0) return false;
  const root = /** @type {Document | ShadowRoot} */ (element.getRootNode());
  const hit = root.elementFromPoint?.(left + width / 2, top + height / 2);
  return hit !== null && hit !== undefined && element.contains(hit);
}
