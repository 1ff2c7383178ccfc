/**
 * Toasts: pop-ups within the page that nobody has to answer. Their style is toast.css.
 *
 * They go away by themselves, so a page must also list what they said (WCAG 2.2.1). They never take the focus
 * (4.1.3). What is announced stands in a live region of its own: inside one, the close button would be read out too.
 * The text is always text, never markup.
 *
 * @typedef {{ text: string, title: string }} Entry
 *
 * @typedef {object} Toast
 * @property {HTMLElement} element
 * @property {Entry[]} entries  several, when they came together
 * @property {number} shownAt
 * @property {number} remaining  milliseconds
 * @property {number} runningSince
 * @property {number | undefined} timer
 */

const SHORTEST_MS = 6_000;
const MS_PER_CHARACTER = 60;
const MOST = 3; // visible at once; the rest waits
const BURST_MS = 1_000; // more than MOST within this become one
const ANNOUNCE_MS = 150; // a live region filled right after it was made isn't read; and bursts are read as one

export class Toasts {
  /** Newest last. @type {Toast[]} */
  #visible = [];
  /** @type {Entry[]} */
  #waiting = [];
  /** @type {Entry[]} */
  #unannounced = [];
  #paused = false;
  /** @type {HTMLElement | null}  where the focus was before it came to a toast */
  #before = null;
  #region;
  #announcer;
  #duration;
  #summary;

  /**
   * Make it when the page loads, not with the first toast.
   *
   * @param {object} [options]
   * @param {number} [options.duration]  the shortest, in milliseconds; 0 leaves toasts until they are closed
   * @param {string} [options.label]  of the region, for screen readers
   * @param {string} [options.close]  names the close button
   * @param {(count: number) => string} [options.summary]  the title of several that came together
   */
  constructor({
    duration = SHORTEST_MS,
    label = "Notifications",
    close = "Close",
    summary = (count) => `${count} new alerts`,
  } = {}) {
    this.#duration = duration;
    this.#summary = summary;
    this.closeLabel = close;
    this.#announcer = make("div", "orderbell-announcer");
    this.#announcer.setAttribute("role", "status");
    this.#region = make("section", "orderbell-toasts");
    this.#region.setAttribute("role", "region");
    this.#region.setAttribute("aria-label", label);
    // The top layer: no dialog or menu of the page covers it.
    this.#region.setAttribute("popover", "manual");
    document.body.append(this.#announcer, this.#region);
    this.#listen();
  }

  /** @param {string} text @param {{ title?: string }} [options] */
  show(text, { title = "" } = {}) {
    const entry = { text, title };
    this.#announce(entry);
    const burst = this.#visible.filter((toast) => Date.now() - toast.shownAt < BURST_MS);
    const entries = [...burst.flatMap((toast) => toast.entries), entry];
    if (entries.length > MOST) {
      // Take the newest one's place, so that nothing jumps.
      const [last, ...others] = burst.reverse();
      for (const toast of others) this.#remove(toast);
      this.#fill(last, entries);
    } else if (this.#visible.length < MOST) {
      this.#add([entry]);
    } else {
      this.#waiting.push(entry);
    }
  }

  #listen() {
    const region = this.#region;
    // Whoever reads, points or looks elsewhere has all the time there is.
    const update = () => this.#pause(document.hidden || region.matches(":hover") || region.contains(document.activeElement));
    region.addEventListener("pointerenter", () => this.#pause(true));
    region.addEventListener("pointerleave", update);
    region.addEventListener("focusout", () => queueMicrotask(update));
    region.addEventListener("focusin", (event) => {
      const from = event.relatedTarget;
      if (from instanceof HTMLElement && !region.contains(from)) this.#before = from;
      this.#pause(true);
    });
    document.addEventListener("visibilitychange", update);
    document.addEventListener("keydown", (event) => this.#press(event));
  }

  /** @param {KeyboardEvent} event */
  #press(event) {
    const inside = this.#region.contains(document.activeElement);
    if (event.key === "F6" && this.#visible.length > 0 && !inside) {
      event.preventDefault();
      this.#before = document.activeElement instanceof HTMLElement ? document.activeElement : null;
      this.#focus(this.#visible[this.#visible.length - 1]);
    } else if (event.key === "Escape" && inside) {
      event.stopPropagation();
      const toast = this.#visible.find(({ element }) => element.contains(document.activeElement));
      if (toast) this.#close(toast);
    }
  }

  /** @param {Entry[]} entries */
  #add(entries) {
    const element = make("article", "orderbell-toast");
    /** @type {Toast} */
    const toast = { element, entries, shownAt: Date.now(), remaining: 0, runningSince: 0, timer: undefined };
    this.#visible.push(toast);
    this.#region.append(element);
    this.#fill(toast, entries);
    if (!this.#region.matches(":popover-open")) this.#region.showPopover?.();
  }

  /** @param {Toast} toast @param {Entry[]} entries */
  #fill(toast, entries) {
    const several = entries.length > 1;
    const title = several ? this.#summary(entries.length) : entries[0].title;
    const texts = several ? entries.slice(-MOST).reverse() : entries;
    const body = make("div", "orderbell-toast-body");
    if (title) body.append(make("strong", "orderbell-toast-title", title));
    for (const { text } of texts) body.append(make("p", "orderbell-toast-text", text));
    if (texts.length < entries.length) body.append(make("p", "orderbell-toast-text", "…"));

    const close = make("button", "orderbell-toast-close", "×");
    close.setAttribute("type", "button");
    close.setAttribute("aria-label", `${this.closeLabel}: ${title || texts[0].text}`);
    close.addEventListener("click", () => this.#close(toast));

    const focused = toast.element.contains(document.activeElement);
    toast.element.replaceChildren(make("span", "orderbell-toast-bell"), body, close);
    if (focused) close.focus();
    toast.entries = entries;
    const characters = texts.reduce((sum, { text }) => sum + text.length, title.length);
    this.#start(toast, this.#duration && Math.max(this.#duration, characters * MS_PER_CHARACTER));
  }

  /** @param {Toast} toast */
  #close(toast) {
    const hadFocus = toast.element.contains(document.activeElement);
    this.#remove(toast);
    if (this.#waiting.length > 0) this.#add(this.#waiting.splice(0));
    const next = this.#visible[this.#visible.length - 1];
    if (hadFocus && next) this.#focus(next);
    else if (hadFocus) this.#before?.focus();
    if (!next) this.#region.hidePopover?.();
    this.#pause(document.hidden || this.#region.matches(":hover") || this.#region.contains(document.activeElement));
  }

  /** @param {Toast} toast */
  #remove(toast) {
    clearTimeout(toast.timer);
    this.#visible = this.#visible.filter((other) => other !== toast);
    toast.element.remove();
  }

  /** @param {Toast} toast */
  #focus(toast) {
    toast.element.querySelector("button")?.focus();
  }

  // --- time ------------------------------------------------------------------------------------------------

  /** @param {boolean} paused */
  #pause(paused) {
    if (paused === this.#paused) return;
    this.#paused = paused;
    for (const toast of this.#visible) {
      if (paused) {
        clearTimeout(toast.timer);
        toast.remaining -= Date.now() - toast.runningSince;
      } else {
        this.#start(toast, toast.remaining);
      }
    }
  }

  /** @param {Toast} toast @param {number} ms  0: for ever */
  #start(toast, ms) {
    clearTimeout(toast.timer);
    toast.remaining = ms;
    toast.runningSince = Date.now();
    if (!this.#paused && this.#duration > 0) {
      toast.timer = window.setTimeout(() => this.#close(toast), Math.max(0, ms));
    }
  }

  /** @param {Entry} entry */
  #announce(entry) {
    this.#unannounced.push(entry);
    if (this.#unannounced.length > 1) return;
    this.#announcer.textContent = ""; // the same text twice would not be read twice
    setTimeout(() => {
      const entries = this.#unannounced.splice(0);
      this.#announcer.textContent =
        entries.length > MOST ? this.#summary(entries.length) : entries.map(({ text }) => text).join(". ");
    }, ANNOUNCE_MS);
  }
}

/** @param {string} tag @param {string} name @param {string} [text] */
function make(tag, name, text = "") {
  const element = document.createElement(tag);
  element.className = name;
  element.textContent = text;
  return element;
}
