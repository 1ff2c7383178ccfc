/**
 * Alerts of the desktop, for when no tab is looked at.
 *
 * They are an extra: whether the system shows one can't be known, so nothing depends on it.
 *
 * @typedef {"unsupported" | "insecure" | "default" | "granted" | "denied"} DesktopState
 */

import { alertAtHand } from "./alert.js";

const SHOWN_MS = 2_000; // not every browser says that a notification is shown; no error by then counts as that

/** @fires change  the state is another */
export class DesktopAlerts extends EventTarget {
  #listening = new AbortController();

  constructor() {
    super();
    const { signal } = this.#listening;
    // People also change their mind in the browser's own settings.
    navigator.permissions?.query({ name: "notifications" }).then(
      (status) => status.addEventListener("change", () => this.dispatchEvent(new Event("change")), { signal }),
      () => {}, // this browser can't be asked about notifications; the button still works
    );
  }

  destroy() {
    this.#listening.abort();
  }

  /** @returns {DesktopState} */
  get state() {
    if (!window.isSecureContext) return "insecure";
    return "Notification" in window ? Notification.permission : "unsupported";
  }

  /**
   * Asks the person. Only in a listener for a click: browsers refuse it anywhere else, and so do people.
   *
   * @returns {Promise<DesktopState>}
   */
  async request() {
    if (this.state === "default") await Notification.requestPermission();
    this.dispatchEvent(new Event("change"));
    return this.state;
  }

  /**
   * Shows one while this page is hidden; a visible page has its toast.
   *
   * Within a listener of "alert" it reports to its AlertSource that the alert was shown.
   *
   * @param {string} title
   * @param {{ body: string, tag: string, icon?: string }} options  tag: one notification for one event
   * @returns {Promise<boolean>} whether it was shown, as far as this can be known
   */
  show(title, options) {
    const alert = alertAtHand();
    const shown = this.#show(title, options, alert?.ended);
    alert?.shown(shown);
    return shown;
  }

  /** @param {string} title @param {NotificationOptions} options @param {AbortSignal} [ended] @returns {Promise<boolean>} */
  async #show(title, options, ended) {
    if (this.state !== "granted" || document.visibilityState === "visible") return false;
    let notification;
    try {
      notification = new Notification(title, options);
    } catch {
      return false; // Chrome on Android has them from a service worker only
    }
    const raised = notification;
    ended?.addEventListener("abort", () => raised.close());
    raised.addEventListener("click", () => {
      window.focus();
      raised.close();
    });
    return new Promise((resolve) => {
      raised.addEventListener("show", () => resolve(true));
      raised.addEventListener("error", () => resolve(false));
      setTimeout(resolve, SHOWN_MS, true);
    });
  }
}
