/** Whether WebSockets pass again, asked from time to time while another transport serves. */

const PROBE_MS = 10_000;
const SOON_MS = 10_000; // if one has worked on this page
const AGAIN_MS = 300_000; // otherwise, and after a probe that failed; doubled each time, up to LATEST_MS
const LATEST_MS = 3_600_000;

export class Probes {
  #environment;
  #delay;

  /** @param {import("../orderbell.js").Environment} environment @param {boolean} soon */
  constructor(environment, soon) {
    this.#environment = environment;
    this.#delay = soon ? SOON_MS : AGAIN_MS;
  }

  /**
   * Probes until one has passed, or the signal aborts.
   *
   * @param {import("../websocket.js").Transport} connect @param {URL} url @param {AbortSignal} signal
   * @param {() => void} passed
   */
  until(connect, url, signal, passed) {
    if (signal.aborted) return;
    const { random, setTimeout, clearTimeout } = this.#environment;
    const timer = setTimeout(
      async () => {
        signal.removeEventListener("abort", stop); // a connection may live for days, and Node warns of many
        const passes = await probe(connect, url, setTimeout);
        if (signal.aborted) return;
        if (passes) return passed();
        this.#delay = this.#delay < AGAIN_MS ? AGAIN_MS : Math.min(2 * this.#delay, LATEST_MS);
        this.until(connect, url, signal, passed);
      },
      this.#delay * (0.8 + 0.4 * random()),
    );
    signal.addEventListener("abort", stop, { once: true });

    function stop() {
      clearTimeout(timer);
    }
  }
}

/**
 * Whether one passes both ways: the gateway answers a ping that comes before any token, or refuses it.
 *
 * @param {import("../websocket.js").Transport} connect @param {URL} url
 * @param {(action: () => void, ms: number) => unknown} later
 * @returns {Promise<boolean>}
 */
async function probe(connect, url, later) {
  /** @type {import("../websocket.js").Connection | undefined} */
  let connection;
  const answered = await new Promise((resolve) => {
    later(() => resolve(false), PROBE_MS);
    connection = connect(url, {
      credential: null,
      authenticate: async () => null,
      opened: () => connection?.send('{"type":"orderbell.ping"}'),
      alive: () => {},
      received: () => resolve(true),
      closed: (code) => resolve(code >= 4000),
    });
  }).catch(() => false); // it can't even be made
  connection?.leave();
  return answered;
}
