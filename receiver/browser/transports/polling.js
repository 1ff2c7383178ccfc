/**
 * Long polling: one request after the other, each from the cursor of the last answer. The session keeps the gateway's
 * notices between two of them.
 */

import { Requests } from "./http.js";

const WAIT_SECONDS = "25"; // below the 30 s after which some proxies give up

/** @param {typeof globalThis.fetch} fetch @returns {import("../websocket.js").Transport} */
export default (fetch) => (url, listener) => {
  const requests = new Requests(fetch, url, listener);
  void poll(requests, Object.fromEntries(url.searchParams)).catch((error) => requests.close(1006, String(error)));
  return { send: (text) => void requests.send(text), leave: () => requests.leave() };
};

/** @param {Requests} requests @param {Record<string, string>} query */
async function poll(requests, query) {
  query.wait = WAIT_SECONDS;
  query.session = [...crypto.getRandomValues(new Uint32Array(4))].join("-");
  while (!requests.closed) {
    const response = await requests.get(query);
    if (!response.ok || !response.headers.get("content-type")?.startsWith("application/json")) {
      return requests.refused(response);
    }
    const { events, notices, cursor } = await response.json();
    requests.alive();
    for (const message of [...notices, ...events]) requests.received(message);
    query.after = cursor;
  }
}
