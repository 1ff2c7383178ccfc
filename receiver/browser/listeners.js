/**
 * What listens to an AlertSource: listeners as on any EventTarget, and handlers as on an EventSource. Only those of
 * "alert" can show one, so they are counted, and what they return is used.
 *
 * @typedef {import("./orderbell.js").AlertSource} AlertSource
 * @typedef {import("./orderbell.js").AlertSourceEventMap} AlertSourceEventMap
 */

/**
 * @template {keyof AlertSourceEventMap} K
 * @typedef {((this: AlertSource, event: AlertSourceEventMap[K]) => unknown) | null} Handler
 */

import { AlertEvent } from "./alert.js";

const HANDLER = Symbol("onalert"); // in the place of a listener

export class Listened extends EventTarget {
  /** Those of "alert", and what is called for each. @type {Map<unknown, any>} */
  #listeners = new Map();
  #onlistener;

  /** @param {() => void} onlistener  somebody listens to "alert" from now on */
  constructor(onlistener) {
    super();
    this.#onlistener = onlistener;
  }

  /** How many can show an alert: without any, this tab leaves them to others. @param {Listened} target */
  static countOf(target) {
    return target.#listeners.size;
  }

  // As on an EventSource: one handler for each kind of event, called after its listeners.

  /** @type {Handler<"open">} */
  onopen = null;
  /** @type {Handler<"message">} */
  onmessage = null;
  /** @type {Handler<"shown">} */
  onshown = null;
  /** @type {Handler<"retracted">} */
  onretracted = null;
  /** @type {Handler<"expired">} */
  onexpired = null;
  /** @type {Handler<"read">} */
  onread = null;
  /** @type {Handler<"unread">} */
  onunread = null;
  /** @type {Handler<"older">} */
  onolder = null;
  /** @type {Handler<"reset">} */
  onreset = null;
  /** @type {Handler<"reconnecting">} */
  onreconnecting = null;
  /** @type {Handler<"error">} */
  onerror = null;
  /** @type {Handler<"close">} */
  onclose = null;
  /** @type {Handler<"alert">} */
  #onalert = null;

  get onalert() {
    return this.#onalert;
  }

  /** As with a listener, this tab shows alerts from now on. */
  set onalert(handler) {
    this.#onalert = handler;
    this.#listeners.delete(HANDLER);
    if (typeof handler !== "function") return;
    this.#listeners.set(HANDLER, handler);
    this.#onlistener();
  }

  /** @param {Event} event @returns {boolean} */
  dispatchEvent(event) {
    super.dispatchEvent(event);
    const handler = /** @type {Record<string, unknown>} */ (/** @type {unknown} */ (this))[`on${event.type}`];
    try {
      if (typeof handler === "function") hear(event, handler.call(this, event));
    } catch (error) {
      reportThrown(error);
    }
    return !event.defaultPrevented;
  }

  /**
   * @template {keyof AlertSourceEventMap} K
   * @overload
   * @param {K} type
   * @param {((this: AlertSource, event: AlertSourceEventMap[K]) => unknown) | { handleEvent: (event: AlertSourceEventMap[K]) => unknown } | null} listener
   * @param {boolean | AddEventListenerOptions} [options]
   * @returns {void}
   */
  /**
   * @overload
   * @param {string} type  of an event, as its sender named it
   * @param {EventListenerOrEventListenerObject | null} listener
   * @param {boolean | AddEventListenerOptions} [options]
   * @returns {void}
   */
  /**
   * @param {string} type @param {any} listener @param {boolean | AddEventListenerOptions} [options]
   */
  addEventListener(type, listener, options) {
    if (type !== "alert" || !listener) return super.addEventListener(type, listener, options);
    const heard =
      this.#listeners.get(listener) ??
      ((/** @type {Event} */ event) =>
        hear(event, typeof listener === "function" ? listener.call(this, event) : listener.handleEvent(event)));
    super.addEventListener(type, heard, options);
    const { once = false, signal } = typeof options === "object" ? options : {};
    if (signal?.aborted) return;
    this.#listeners.set(listener, heard);
    // It may have been removed and added again since: then this is about an earlier time.
    const forget = () => void (this.#listeners.get(listener) === heard && this.#listeners.delete(listener));
    signal?.addEventListener("abort", forget, { once: true });
    if (once) super.addEventListener(type, forget, { once, signal });
    this.#onlistener(); // for what came before anything could show it
  }

  /**
   * @template {keyof AlertSourceEventMap} K
   * @overload
   * @param {K} type
   * @param {((this: AlertSource, event: AlertSourceEventMap[K]) => unknown) | { handleEvent: (event: AlertSourceEventMap[K]) => unknown } | null} listener
   * @param {boolean | EventListenerOptions} [options]
   * @returns {void}
   */
  /**
   * @overload
   * @param {string} type
   * @param {EventListenerOrEventListenerObject | null} listener
   * @param {boolean | EventListenerOptions} [options]
   * @returns {void}
   */
  /** @param {string} type @param {any} listener @param {boolean | EventListenerOptions} [options] */
  removeEventListener(type, listener, options) {
    super.removeEventListener(type, (type === "alert" && this.#listeners.get(listener)) || listener, options);
    if (type === "alert") this.#listeners.delete(listener);
  }
}

/** What a listener has returned says when an alert was shown. @param {Event} event @param {unknown} result */
function hear(event, result) {
  if (event instanceof AlertEvent) event.after(result);
}

/** Reports what a handler threw, as browsers do for listeners. @param {unknown} error */
function reportThrown(error) {
  if (typeof reportError === "function") return reportError(error);
  queueMicrotask(() => {
    throw error; // Node has no reportError
  });
}
