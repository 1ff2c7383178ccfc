/**
 * Toasts: pop-ups within the page that nobody has to answer. Their style is toast.css.
 *
 * They go away by themselves, so a page must also list what they said (WCAG 2.2.1). They never take the focus
 * (4.1.3). What is announced stands in a live region of its own: inside one, the close button would be read out too.
 * The text is always text, never markup.
 *
 * Both regions are in the top layer, or in the modal dialog that is open: it makes all else inert, a popover over it
 * included, and mutes live regions outside.
 *
 * @typedef {import("./orderbell.js").CloudEvent} CloudEvent
 *
 * @typedef {object} Entry
 * @property {string} text
 * @property {import("./words.js").Severity} severity
 * @property {string} link
 * @property {import("./links.js").Action[]} actions
 * @property {CloudEvent | undefined} event
 * @property {string} title
 * @property {string} lang
 * @property {((seen: boolean) => void) | null} settle  null: it was called
 *
 * @typedef {object} Toast
 * @property {HTMLElement} element
 * @property {HTMLElement} body
 * @property {HTMLElement} close
 * @property {Entry[]} entries  several, when they came together
 * @property {number} shownAt
 * @property {number} visibleSince  0: not visible, as far as the last look could tell
 * @property {boolean} seen
 * @property {number} remaining  milliseconds
 * @property {boolean} stale  its entries are others than its element says
 */

// Time is performance.now(): a clock that is put back would keep toasts on the screen, unseen.

import { alertAtHand } from "./alert.js";
import { Announcer } from "./announcer.js";
import { make, words } from "./text-elements.js";
import { InView, isUncovered } from "./visible.js";
import { ENGLISH, SEVERITIES, severityOf, shorten, textOf } from "./words.js";

const SHORTEST_MS = 6_000;
const LONGEST_MS = 30_000; // however long the text: its beginning is all that is shown
const MS_PER_CHARACTER = 60;
const MS_PER_ACTION = 3_000; // to decide
const MOST = 3; // visible at once; the rest waits
const SMALL = "(max-width: 30rem), (max-height: 30rem)"; // telephones, and 400 % zoom: one at a time
const BURST_MS = 1_000; // more than MOST within this become one
const SEEN_MS = 300; // on the screen, without a break: what goes before somebody could notice it doesn't count
const LOOK_MS = 100;
const LATE_MS = 1_000; // a look that comes later than this says nothing of the time before it

/** Loaded with the first alert that leads somewhere. @type {typeof import("./links.js") | undefined} */
let links;

/** @fires action  CustomEvent `{action, event}`: somebody chose an action that names an event for the page */
export class Toasts extends EventTarget {
  /** The topmost first. @type {Toast[]} */
  #visible = [];
  /** Those shown outside of an alert, for which there is no room. @type {Entry[]} */
  #waiting = [];
  /** @type {Set<() => void>} */
  #whenRoom = new Set();
  /** @type {number | undefined} */
  #looking;
  #lookedAt = 0;
  #looks = 0;
  #pointed = false;
  #rendering = false;
  /** @type {HTMLElement | null}  where the focus was before it came to a toast */
  #before = null;
  /** Modal dialogs, as they were opened. @type {HTMLDialogElement[]} */
  #dialogs = [];
  #listening = new AbortController();
  #inView = new InView();
  #watching;
  #small;
  #region;
  #announcer;
  #duration;
  #texts;
  #origins;

  /**
   * Make it when the page loads, not with the first toast.
   *
   * @param {object} [options]
   * @param {number} [options.duration]  the shortest, in milliseconds; 0 leaves toasts until they are closed
   * @param {Partial<import("./words.js").Texts>} [options.texts]  in place of the English ones: languages.js has others
   * @param {readonly string[]} [options.origins]  to which links may lead, beside the page's own
   * @param {string} [options.label]  these four: as in `texts`
   * @param {string} [options.close]
   * @param {(count: number) => string} [options.summary]
   * @param {string} [options.untitled]
   */
  constructor({ duration = SHORTEST_MS, texts, origins = [], ...others } = {}) {
    super();
    this.#duration = duration;
    this.#origins = origins;
    const given = Object.entries({ ...texts, ...others }).filter(([, text]) => text !== undefined);
    // A page that overrides some without a word of their language has its own.
    const lang = given.length > 0 ? "" : ENGLISH.lang;
    this.#texts = /** @type {import("./words.js").Texts} */ ({ ...ENGLISH, lang, ...Object.fromEntries(given) });
    this.closeLabel = this.#texts.close;
    this.#announcer = new Announcer(this.#texts);
    this.#region = make("section", "orderbell-toasts");
    this.#region.setAttribute("role", "region");
    this.#region.setAttribute("aria-label", this.#texts.label);
    // The top layer: nothing of the page covers it but a modal dialog, into which it moves.
    this.#region.setAttribute("popover", "manual");
    this.#small = window.matchMedia(SMALL);
    // A dialog may be taken out of the page, and the toasts with it; or there was no body yet.
    this.#watching = new MutationObserver(() => this.#region.closest("body") || this.#place());
    this.#place();
    this.#listen();
  }

  /**
   * Shows a text, or what an event says: its `data.message`, else its type and subject.
   *
   * Within a listener of "alert" it reports to its AlertSource when the alert was seen.
   *
   * @param {unknown} what  a text or a CloudEvent; of anything else, what the alert says
   * @param {object} [options]
   * @param {unknown} [options.title]
   * @param {string} [options.lang]  the language of the text
   * @param {AbortSignal} [options.signal]  takes it off the screen
   * @returns {Promise<boolean>} true once it was on a visible screen for a moment; false when it never was
   */
  show(what, { title = "", lang = "", signal } = {}) {
    const alert = alertAtHand(what);
    /** @type {(seen: boolean) => void} */
    let settle = () => {};
    /** @type {Promise<boolean>} */
    const seen = new Promise((resolve) => (settle = resolve));
    const event = typeof what === "object" && what !== null ? /** @type {CloudEvent} */ (what) : alert?.detail;
    const data = Object(event?.data);
    /** @type {Entry} */
    const entry = {
      text: this.#textOf(what, event),
      severity: severityOf(event),
      link: "",
      actions: [],
      title: shorten(title),
      lang,
      event,
      settle,
    };
    alert?.into(this);
    alert?.shown(seen);
    for (const ending of [signal, alert?.signal]) ending?.addEventListener("abort", () => this.#withdraw(entry));
    alert?.ended.addEventListener("abort", () => this.#withdraw(entry, { seen: true }));
    if (data.link || data.actions) this.#lead(entry);
    if (signal?.aborted || alert?.signal.aborted) this.#settle([entry], false);
    else this.#put(entry);
    return seen;
  }

  /**
   * Its link and its actions, which the first toast that has some shows a moment later: no alert waits for a file.
   *
   * @param {Entry} entry
   */
  #lead(entry) {
    const { link, actions } = Object(entry.event?.data);
    const complete = (/** @type {typeof import("./links.js")} */ { actionsOf, safe }) =>
      void Object.assign(entry, { link: safe(link, this.#origins), actions: actionsOf(actions, this.#origins) });
    if (links) return complete(links);
    import("./links.js").then((module) => {
      complete((links = module));
      const toast = this.#visible.find(({ entries }) => entries.includes(entry));
      if (toast) this.#fill(toast, toast.entries);
    }, console.warn);
  }

  /** @param {unknown} what @param {CloudEvent | undefined} event */
  #textOf(what, event) {
    const said = typeof what === "object" ? "" : shorten(what);
    return said || shorten(event && textOf(event, this.#texts.messages)) || this.#texts.untitled;
  }

  /** Takes all toasts away, as when somebody signs out. */
  clear() {
    for (const toast of [...this.#visible]) this.#remove(toast);
    this.#settle(this.#waiting.splice(0), false);
    this.#announcer.clear();
    this.#hide();
  }

  /** Takes away all toasts, and everything that this object has put into the page. */
  destroy() {
    this.clear();
    clearTimeout(this.#looking);
    this.#listening.abort();
    this.#watching.disconnect();
    this.#inView.close();
    this.#region.remove();
    this.#announcer.remove();
  }

  // --- room ----------------------------------------------------------------------------------------------

  /** Whether an alert would be shown at once. While somebody reads, or aims at a button, nothing moves. */
  get hasRoom() {
    if (this.#waiting.length > 0 || this.#held) return false;
    return this.#hasPlace || this.#joins || this.#burst.flatMap(({ entries }) => entries).length >= MOST || this.#undrawn;
  }

  /** @param {() => void} action */
  whenRoom(action) {
    this.#whenRoom.add(action);
  }

  #offerRoom() {
    if (this.#waiting.length > 0 && !this.#held && (this.#hasPlace || this.#joins)) {
      for (const entry of this.#waiting.splice(0)) this.#put(entry);
    }
    if (!this.hasRoom) return;
    const actions = [...this.#whenRoom];
    this.#whenRoom.clear();
    for (const action of actions) action();
  }

  /** What stays until it is closed has places of its own, or nothing else would be shown until then. */
  get #hasPlace() {
    if (this.#small.matches) return this.#visible.length === 0;
    return this.#visible.length - Math.min(this.#visible.filter(stays).length, MOST) < MOST;
  }

  /** On a small screen the others join what stays. */
  get #joins() {
    return this.#small.matches && this.#visible.length === 1 && stays(this.#visible[0]);
  }

  /** Toasts that are so new that more than a few become one. */
  get #burst() {
    return this.#visible.filter((toast) => performance.now() - toast.shownAt < BURST_MS);
  }

  /** Whether the newest toast was made in this very moment: nobody sees it change when others join it. */
  get #undrawn() {
    const newest = this.#visible[this.#visible.length - 1];
    return newest !== undefined && !newest.body.isConnected;
  }

  /** @param {Entry} entry */
  #put(entry) {
    if (!this.hasRoom) {
      this.#waiting.push(entry);
      return;
    }
    const burst = this.#burst;
    const entries = [...burst.flatMap((toast) => toast.entries), entry];
    const last = this.#visible[this.#visible.length - 1];
    if (entries.length > MOST && burst.length > 0) {
      // In the newest one's place, so that nothing jumps.
      for (const toast of burst) if (toast !== last) this.#takeOver(toast);
      this.#fill(last, entries);
    } else if (this.#hasPlace) {
      this.#add([entry]);
    } else {
      this.#fill(last, [...last.entries, entry]);
    }
    this.#announcer.announce(entry);
  }

  /** Its entries are another toast's now. @param {Toast} toast */
  #takeOver(toast) {
    toast.entries = [];
    this.#remove(toast);
  }

  /** @param {Entry[]} entries */
  #add(entries) {
    const element = make("article", "orderbell-toast");
    const body = make("div", "orderbell-toast-body");
    const close = make("button", "orderbell-toast-close", "×");
    close.setAttribute("type", "button");
    element.append(make("span", "orderbell-toast-bell"), close);
    /** @type {Toast} */
    const toast = { element, body, close, entries, shownAt: performance.now(), visibleSince: 0, seen: false, remaining: 0, stale: false };
    close.addEventListener("click", () => this.#close(toast));
    this.#visible.push(toast);
    this.#fill(toast, entries);
    if (!this.#region.isConnected) this.#place();
    this.#region.append(element);
    this.#inView.watch(element);
    this.#raise();
    this.#look();
  }

  /** @param {Toast} toast @param {Entry[]} entries */
  #fill(toast, entries) {
    toast.entries = entries;
    toast.visibleSince = 0; // what it says now was not seen yet
    const texts = textsOf(toast);
    const characters = texts.reduce((sum, { text }) => sum + text.length, entries[0].title.length);
    const decisions = entries.length > 1 ? 0 : entries[0].actions.length;
    const shortest = this.#duration + decisions * MS_PER_ACTION;
    toast.remaining = Math.min(Math.max(shortest, characters * MS_PER_CHARACTER), LONGEST_MS);
    toast.stale = true;
    if (this.#rendering) return;
    // Of a hundred in one go only the last is drawn.
    this.#rendering = true;
    queueMicrotask(() => {
      this.#rendering = false;
      for (const each of this.#visible) if (each.stale) this.#draw(each);
    });
  }

  /** @param {Toast} toast */
  #draw(toast) {
    const { entries } = toast;
    const [first] = entries;
    const several = entries.length > 1;
    const texts = textsOf(toast);
    const title = several ? this.#texts.summary(entries.length) : first.title;
    const severity = worstOf(toast);
    const followed = () => this.#follow(toast);
    const body = make("div", "orderbell-toast-body");
    toast.element.dataset.severity = severity;
    const marked = this.#texts.severities[severity];
    if (marked) body.append(words("span", "orderbell-toast-severity", marked, this.#texts.lang));
    if (title) body.append(words("strong", "orderbell-toast-title", title, several ? this.#texts.lang : first.lang));
    for (const { text, lang, link } of texts) {
      const said = words("p", "orderbell-toast-text", link ? "" : text, lang);
      if (link && links) said.append(links.anchor(link, text, followed));
      body.append(said);
    }
    if (texts.length < entries.length) body.append(make("p", "orderbell-toast-text", "…"));
    const urgent = entries.filter((entry) => entry.severity === "critical");
    const [asking] = several && urgent.length === 1 ? urgent : several ? [] : entries;
    if (links && asking?.actions.length) {
      body.append(links.buttons(asking.actions, followed, (name) => this.#choose(toast, name, asking)));
    }
    toast.body.remove();
    toast.body = body;
    toast.close.before(body);
    // The button stays the same: somebody may be pressing it.
    toast.close.setAttribute("aria-label", `${this.closeLabel}: ${shorten(title || texts[0].text, 80)}`);
    toast.stale = false;
  }

  /** Somebody has followed one of its links: this page may go now. @param {Toast} toast */
  #follow(toast) {
    this.#settle(toast.entries, true);
    setTimeout(() => this.#close(toast)); // once the browser has followed it
  }

  /** @param {Toast} toast @param {string} action @param {Entry} entry */
  #choose(toast, action, { event }) {
    this.#close(toast);
    this.dispatchEvent(new CustomEvent("action", { detail: { action, event } }));
  }

  /**
   * Its alert is no longer this page's to show; or no alert any more, and then it goes though it was seen.
   *
   * @param {Entry} entry @param {{ seen?: boolean }} [options]
   */
  #withdraw(entry, { seen = false } = {}) {
    this.#settle([entry], false);
    this.#waiting = this.#waiting.filter((other) => other !== entry);
    this.#announcer.withdraw(entry);
    const toast = this.#visible.find(({ entries }) => entries.includes(entry));
    if (!toast || (toast.seen && !seen)) return; // what was seen stays until it has been read
    const others = toast.entries.filter((other) => other !== entry);
    if (others.length > 0) this.#fill(toast, others);
    else this.#close(toast);
  }

  /** @param {Toast} toast */
  #close(toast) {
    if (!this.#visible.includes(toast)) return;
    const hadFocus = toast.element.contains(document.activeElement);
    const byKeyboard = toast.element.querySelector(":focus-visible") !== null;
    this.#remove(toast);
    const next = this.#visible[0];
    if (byKeyboard && next) next.close.focus();
    else if (hadFocus) this.#before?.focus();
    if (!next) this.#hide();
    this.#offerRoom();
  }

  #hide() {
    this.#pointed = false; // in WebKit no `pointerleave` comes, and `:hover` stays
    this.#region.hidePopover?.();
  }

  /** @param {Toast} toast */
  #remove(toast) {
    this.#visible = this.#visible.filter((other) => other !== toast);
    this.#inView.forget(toast.element);
    toast.element.remove();
    // Closed by a person in the first moment: that is seen, too.
    this.#settle(toast.entries, isLookedAt());
  }

  /** @param {Entry[]} entries @param {boolean} seen */
  #settle(entries, seen) {
    for (const entry of entries) {
      entry.settle?.(seen);
      entry.settle = null;
    }
  }

  // --- time ------------------------------------------------------------------------------------------------

  /**
   * Looks ten times a second, while there are toasts, at which of them a person can see; and the topmost grows older
   * while nobody points at them or has the focus in them.
   */
  #look() {
    clearTimeout(this.#looking);
    this.#lookedAt = performance.now();
    this.#looking = window.setTimeout(() => {
      const passed = performance.now() - this.#lookedAt;
      if (passed > LATE_MS) for (const toast of this.#visible) toast.visibleSince = 0; // frozen meanwhile, or asleep
      for (const toast of this.#visible) this.#lookAt(toast);
      const [topmost] = this.#visible;
      const ages = this.#visible.find((toast) => !stays(toast));
      // A dialog that sent out no event, or one that another script has put over us.
      if (topmost && !topmost.visibleSince && isLookedAt() && ++this.#looks % 10 === 0) this.#place();
      if (ages?.visibleSince && this.#duration > 0 && !this.#held) {
        ages.remaining -= Math.min(passed, LATE_MS);
        if (ages.remaining <= 0) this.#close(ages);
      }
      this.#offerRoom();
      if (this.#visible.length > 0) this.#look();
    }, LOOK_MS);
  }

  /** @param {Toast} toast */
  #lookAt(toast) {
    const { element } = toast;
    if (!isLookedAt() || !this.#inView.has(element) || !isUncovered(element)) {
      toast.visibleSince = 0;
      return;
    }
    toast.visibleSince ||= performance.now();
    if (performance.now() - toast.visibleSince < SEEN_MS) return;
    toast.seen = true;
    this.#settle(toast.entries, true);
  }

  /** Somebody reads them, or is about to press a button. */
  get #held() {
    // A finger leaves `:hover` behind, where a toast is gone no `pointerleave` comes.
    if (this.#pointed && this.#region.matches(":hover")) return true;
    return this.#region.querySelector(":focus-visible") !== null; // not what a mouse has left behind
  }

  // --- keys ------------------------------------------------------------------------------------------------

  #listen() {
    const { signal } = this.#listening;
    this.#region.addEventListener("pointerenter", () => (this.#pointed = true));
    this.#region.addEventListener("pointerleave", () => {
      this.#pointed = false;
      this.#offerRoom();
    });
    this.#region.addEventListener("focusout", () => queueMicrotask(() => this.#offerRoom()));
    this.#region.addEventListener("focusin", ({ relatedTarget: from }) => {
      if (from instanceof HTMLElement && !this.#region.contains(from)) this.#before = from;
    });
    document.addEventListener("keydown", (event) => this.#press(event), { signal, capture: true });
    document.addEventListener("visibilitychange", () => this.#hidden(), { signal });
    for (const type of ["beforetoggle", "toggle", "close"]) {
      document.addEventListener(type, (event) => this.#toggled(event), { signal, capture: true });
    }
  }

  /** What was not visible for long enough begins anew. */
  #hidden() {
    if (isLookedAt()) return;
    for (const toast of this.#visible) toast.visibleSince = 0;
  }

  /** @param {KeyboardEvent} event */
  #press(event) {
    const inside = this.#region.contains(document.activeElement);
    if (event.key === "F6" && this.#visible.length > 0 && !inside) {
      event.preventDefault();
      this.#before = document.activeElement instanceof HTMLElement ? document.activeElement : null;
      this.#visible[0].close.focus();
    } else if (event.key === "Escape" && inside) {
      event.stopPropagation();
      event.preventDefault(); // or the dialog that we are in would close
      const toast = this.#visible.find(({ element }) => element.contains(document.activeElement));
      if (toast) this.#close(toast);
    }
  }

  // --- above everything ------------------------------------------------------------------------------------

  /** @param {Event} event */
  #toggled({ target }) {
    if (!(target instanceof HTMLDialogElement)) return;
    // Before it opens it is not modal yet, and after it has closed no longer.
    queueMicrotask(() => {
      this.#dialogs = this.#dialogs.filter((dialog) => dialog !== target);
      if (target.open) this.#dialogs.push(target);
      this.#place();
    });
  }

  /** Into the modal dialog that is on top, or into the page. */
  #place() {
    // Those that were opened before we listened, or within a shadow root that sends out no event.
    const known = this.#dialogs.filter((dialog) => dialog.isConnected && dialog.matches(":modal"));
    const others = [...document.querySelectorAll("dialog:modal")].filter((one) => !known.includes(/** @type {HTMLDialogElement} */ (one)));
    const home = known[known.length - 1] ?? others[others.length - 1] ?? document.body ?? document.documentElement;
    if (this.#region.parentElement !== home) {
      const focused = document.activeElement;
      const before = this.#before;
      home.append(...this.#announcer.regions, this.#region);
      if (focused instanceof HTMLElement && this.#region.contains(focused)) focused.focus();
      this.#before = before;
    }
    if (home === document.body) this.#watching.disconnect();
    else this.#watching.observe(document, { childList: true, subtree: true });
    this.#raise();
  }

  /** Shows the region as the last of the top layer. */
  #raise() {
    const region = this.#region;
    if (!region.showPopover || this.#visible.length === 0) return;
    const open = region.matches(":popover-open");
    const [topmost] = this.#visible;
    if (open && isUncovered(topmost.element)) return; // raising it again would take the focus and the pointer away
    if (open && region.contains(document.activeElement)) return;
    if (open) region.hidePopover();
    region.showPopover();
  }
}

function isLookedAt() {
  return document.visibilityState === "visible" && !document.hidden;
}

/** @param {Toast} toast */
function worstOf({ entries }) {
  return SEVERITIES[Math.max(...entries.map(({ severity }) => SEVERITIES.indexOf(severity)), 0)];
}

/** Until somebody closes it. @param {Toast} toast */
function stays(toast) {
  return worstOf(toast) === "critical";
}

/** The urgent and then the newest first, no more than a person takes in. @param {Toast} toast */
function textsOf({ entries }) {
  const isUrgent = (/** @type {Entry} */ { severity }) => Number(severity === "critical");
  return [...entries].reverse().sort((one, other) => isUrgent(other) - isUrgent(one)).slice(0, MOST);
}
