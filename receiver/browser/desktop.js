/**
 * Alerts of the desktop, for when no tab is looked at.
 *
 * They are an extra: whether the system shows one can't be known, so nothing depends on it.
 *
 * @typedef {"unsupported" | "insecure" | "default" | "granted" | "denied"} DesktopState
 */

/** @fires change  the state is another */
export class DesktopAlerts extends EventTarget {
  constructor() {
    super();
    // People also change their mind in the browser's own settings.
    navigator.permissions?.query({ name: "notifications" }).then(
      (status) => status.addEventListener("change", () => this.dispatchEvent(new Event("change"))),
      () => {}, // this browser can't be asked about notifications; the button still works
    );
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
   * @param {string} title
   * @param {{ body: string, tag: string, icon?: string }} options  tag: one notification for one event
   */
  show(title, options) {
    if (this.state !== "granted" || document.visibilityState === "visible") return;
    let notification;
    try {
      notification = new Notification(title, options);
    } catch {
      return; // Chrome on Android has them from a service worker only
    }
    notification.addEventListener("click", () => {
      window.focus();
      notification.close();
    });
  }
}
