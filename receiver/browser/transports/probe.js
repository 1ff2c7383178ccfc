/** Whether WebSockets pass again, asked while another transport serves. */

const PROBE_MS = 10_000;

/**
 * Whether one passes both ways: the gateway answers a ping that comes before any token, or refuses it.
 *
 * @param {import("../websocket.js").Transport} connect @param {URL} url
 * @param {(action: () => void, ms: number) => unknown} later
 * @returns {Promise<boolean>}
 */
export async function passes(connect, url, later) {
  /** @type {import("../websocket.js").Connection | undefined} */
  let probe;
  const answered = await new Promise((resolve) => {
    later(() => resolve(false), PROBE_MS);
    probe = connect(url, {
      credential: null,
      authenticate: async () => null,
      opened: () => probe?.send('{"type":"orderbell.ping"}'),
      alive: () => {},
      received: () => resolve(true),
      closed: (code) => resolve(code >= 4000),
    });
  });
  probe?.leave();
  return answered;
}
