/**
 * The life of the page that an AlertSource is on: looked at or hidden, frozen, kept in the back/forward cache, asleep,
 * on another network.
 *
 * @typedef {object} Owner
 * @property {() => void} hide  it is left, perhaps for good
 * @property {() => void} unhide  it comes back from the cache
 * @property {() => void} freeze
 * @property {() => void} thaw
 * @property {() => void} look  it is looked at now, or no longer
 * @property {() => void} focus
 * @property {(another: boolean) => void} renew  the connection may be dead; another: the network has changed
 * @property {() => void} tick  every few seconds
 * @property {() => void} forbidden  by the Content-Security-Policy
 */

const TICK_MS = 5_000;
const SLEPT_MS = 150_000; // a hidden tab's timers may fire once a minute; later than this, the machine slept

export class Page {
  #environment;
  #owner;
  #tickAt = 0;
  /** @type {number | undefined} */
  #ticking;
  #wasOffline = false;

  /** @param {import("./environment.js").Environment} environment @param {string} origin  of the gateway @param {AbortSignal} signal @param {Owner} owner */
  constructor(environment, origin, signal, owner) {
    this.#environment = environment;
    this.#owner = owner;
    const { window, document } = environment;
    const looking = AbortSignal.any?.([signal]) ?? signal; // Node warns of more than ten listeners to one signal
    // A page in the back/forward cache may have no open connection; one that is left needs none.
    window.addEventListener("pagehide", () => owner.hide(), { signal });
    window.addEventListener(
      "pageshow",
      (event) => {
        if (!(/** @type {PageTransitionEvent} */ (event).persisted)) return; // an ordinary load
        this.#tickAt = environment.now();
        owner.unhide();
      },
      { signal },
    );
    // "offline" alone ends nothing: a gateway on this machine or in this house can be reached without a network.
    // But after it, a connection that went through the old network may never report a close.
    window.addEventListener("offline", () => (this.#wasOffline = true), { signal });
    window.addEventListener("online", () => this.#wasOffline && this.#renew(true), { signal });
    window.addEventListener("focus", () => owner.focus(), { signal });
    document.addEventListener("visibilitychange", () => this.#look(), { signal: looking });
    document.addEventListener("prerenderingchange", () => this.#look(), { signal: looking });
    document.addEventListener("freeze", () => owner.freeze(), { signal: looking });
    document.addEventListener("resume", () => (owner.thaw(), this.#look()), { signal: looking });
    document.addEventListener(
      "securitypolicyviolation",
      ({ effectiveDirective: directive, blockedURI: blocked }) => {
        if (directive === "connect-src" && blocked.replace(/^ws/, "http").startsWith(origin)) owner.forbidden();
      },
      { signal: looking },
    );
    this.#tick();
    signal.addEventListener("abort", () => environment.clearTimeout(this.#ticking));
  }

  get isVisible() {
    return this.#environment.document.visibilityState === "visible";
  }

  #look() {
    if (this.isVisible) this.#checkSleep();
    this.#owner.look();
  }

  #tick() {
    this.#tickAt = this.#environment.now();
    this.#ticking = this.#environment.setTimeout(() => {
      this.#checkSleep();
      this.#owner.tick();
      this.#tick();
    }, TICK_MS);
  }

  /**
   * Connections die silently while a machine sleeps; the clock shows that it slept. If the clock was put back, the next
   * hello shows again how far it is from the server's, and silence is measured anew.
   */
  #checkSleep() {
    const passed = this.#environment.now() - this.#tickAt;
    this.#tickAt = this.#environment.now();
    if (passed > SLEPT_MS || passed < 0) this.#renew(false);
  }

  /** @param {boolean} another */
  #renew(another) {
    this.#wasOffline = false;
    this.#owner.renew(another);
  }
}
