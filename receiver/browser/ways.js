/**
 * Which transport to use: the first that works. If one fails, or keeps breaking, the next is tried. While another one
 * serves, the WebSocket is probed from time to time, and used again once a probe was answered.
 *
 * The other transports are loaded only when they are needed.
 *
 * @typedef {import("./websocket.js").Transport} Transport
 * @typedef {"websocket" | "sse" | "long-polling"} Way
 */

import { webSocketTransport } from "./websocket.js";

/** @type {readonly Way[]} */
export const WAYS = ["websocket", "sse", "long-polling"];

const FAILURES = 2; // in a row without a hello
const CUTS = 3; // in a row that broke within CUT_MS of their hello
const CUT_MS = 30_000;
const AGAIN_MS = 300_000; // until the WebSocket is tried again; doubled each time it fails, up to LATEST_MS
const LATEST_MS = 3_600_000;
const SOON_MS = 10_000; // where it has worked on this page

export class Ways {
  #ways;
  #environment;
  #at = 0;
  #failures = 0;
  #cuts = 0;
  #againMs = AGAIN_MS;
  #worked = false; // the WebSocket, on this page
  /** @type {number | undefined} */
  #timer;

  /** @param {readonly Way[]} ways @param {import("./orderbell.js").Environment} environment */
  constructor(ways, environment) {
    this.#ways = ways.filter((way) => WAYS.includes(way));
    if (this.#ways.length === 0) throw new TypeError(`transports has to list some of ${WAYS.join(", ")}`);
    this.#environment = environment;
  }

  get name() {
    return /** @type {Way} */ (this.#ways[this.#at]);
  }

  get count() {
    return this.#ways.length;
  }

  /** @returns {Promise<Transport> | Transport} */
  get transport() {
    const { WebSocket, fetch } = this.#environment;
    if (this.name === "websocket") return webSocketTransport(WebSocket);
    const loading = this.name === "sse" ? import("./transports/sse.js") : import("./transports/polling.js");
    return loading.then((module) => module.default(fetch));
  }

  /** A connection ended before its hello. @param {boolean} waited  whether it timed out: then once is enough */
  failed(waited) {
    this.#failures += waited ? FAILURES : 1;
    if (this.#failures >= FAILURES) this.#leave();
  }

  /** A connection broke. @param {number} ms  how long it had lived */
  broke(ms) {
    this.#cuts = ms < CUT_MS ? this.#cuts + 1 : 0;
    if (this.#cuts >= CUTS) this.#leave();
  }

  #leave() {
    this.#at = (this.#at + 1) % this.#ways.length;
    this.#failures = this.#cuts = 0;
  }

  /** The gateway said hello. @param {URL} url @param {() => void} better  called when the WebSocket works again */
  works(url, better) {
    this.#failures = 0;
    this.stop();
    if (this.name === "websocket") {
      this.#worked = true;
      this.#againMs = AGAIN_MS;
    } else if (this.#ways[0] === "websocket") {
      this.#tryLater(url, better);
    }
  }

  /** The network has changed: the new one may let WebSockets pass. */
  renew() {
    this.#at = this.#failures = this.#cuts = 0;
    this.#againMs = AGAIN_MS;
  }

  stop() {
    this.#environment.clearTimeout(this.#timer);
  }

  /** @param {URL} url @param {() => void} better */
  #tryLater(url, better) {
    const { WebSocket, random, setTimeout } = this.#environment;
    const delay = this.#worked ? SOON_MS : this.#againMs;
    this.#timer = setTimeout(
      async () => {
        const probe = await import("./transports/probe.js").catch(() => null);
        if (await probe?.passes(webSocketTransport(WebSocket), url, setTimeout)) {
          this.#at = 0;
          better();
        } else {
          this.#worked = false;
          this.#againMs = Math.min(2 * this.#againMs, LATEST_MS);
          this.#tryLater(url, better);
        }
      },
      delay * (0.8 + 0.4 * random()),
    );
  }
}
