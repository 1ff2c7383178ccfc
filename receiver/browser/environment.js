/**
 * What an AlertSource needs from its browser, and what stands in for it in Node or in a worker.
 *
 * @typedef {object} Environment  what the browser gives
 * @property {import("./websocket.js").SocketClass} WebSocket
 * @property {typeof fetch} fetch
 * @property {IDBFactory | null} indexedDB
 * @property {((name: string) => BroadcastChannel) | null} broadcastChannel
 * @property {(action: () => void, ms: number) => number} setTimeout
 * @property {(timer: number | undefined) => void} clearTimeout
 * @property {() => number} now  milliseconds; goes on while the machine sleeps
 * @property {() => number} random
 * @property {EventTarget} window  fires pagehide, pageshow, online, offline, focus
 * @property {Document} document
 */

/** @returns {Environment} */
export function browser() {
  return {
    WebSocket: globalThis.WebSocket,
    fetch: (...request) => globalThis.fetch(...request),
    indexedDB: storage(),
    broadcastChannel: typeof BroadcastChannel === "undefined" ? null : (name) => new BroadcastChannel(name),
    setTimeout: (action, ms) => Number(globalThis.setTimeout(action, ms)),
    clearTimeout: (timer) => globalThis.clearTimeout(timer),
    now: () => Date.now(),
    random: () => Math.random(),
    // Node's global object is not an EventTarget.
    window: "addEventListener" in globalThis ? globalThis : new EventTarget(),
    document: globalThis.document ?? outside(),
  };
}

function storage() {
  try {
    return globalThis.indexedDB ?? null;
  } catch {
    return null; // some browsers throw where site data is blocked
  }
}

/** A worker has no document: it receives events, and shows nothing. */
function outside() {
  const looks = { visibilityState: "hidden", baseURI: globalThis.location?.href ?? "", hasFocus: () => false };
  return /** @type {Document} */ (/** @type {unknown} */ (Object.assign(new EventTarget(), looks)));
}

/**
 * A gateway's address is a folder, and relative to the page: `<base>` is for the page's links and pictures. The address
 * of its WebSocket will do, too.
 *
 * @param {string | URL} url @param {Document} document
 */
export function addressOf(url, document) {
  const page = document.location?.href ?? "";
  const address = new URL(url, (/^https?:/.test(page) ? page : document.baseURI) || undefined);
  address.protocol = address.protocol.replace("ws", "http");
  if (!address.pathname.endsWith("/")) address.pathname += "/";
  return address;
}
