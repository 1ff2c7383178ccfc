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

export class Ways {
  #ways;
  #environment;
  #at = 0;
  #failures = 0;
  #cuts = 0;
  #worked = false; // the WebSocket, on this page
  /** @type {Promise<import("./transports/probe.js").Probes | null> | null} */
  #probes = null;

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

  /**
   * The gateway said hello.
   *
   * @param {URL} url @param {AbortSignal} signal  of this connection @param {() => void} better  called when the WebSocket works again
   */
  works(url, signal, better) {
    this.#failures = 0;
    if (this.name === "websocket") {
      this.#worked = true;
      this.#probes = null;
    } else if (this.#ways[0] === "websocket") {
      void this.#tryLater(url, signal, better);
    }
  }

  /** The network has changed: the new one may let WebSockets pass. */
  renew() {
    this.#at = this.#failures = this.#cuts = 0;
    this.#probes = null;
  }

  /** @param {URL} url @param {AbortSignal} signal @param {() => void} better */
  async #tryLater(url, signal, better) {
    this.#probes ??= import("./transports/probe.js").then(
      ({ Probes }) => new Probes(this.#environment, this.#worked),
      () => (this.#probes = null), // the next connection asks for it again
    );
    (await this.#probes)?.until(webSocketTransport(this.#environment.WebSocket), url, signal, () => {
      this.#at = 0;
      better();
    });
  }
}
