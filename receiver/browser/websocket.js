/**
 * The WebSocket transport: one connection, from open to close, and nothing about what is said over it.
 *
 * A transport is a function of this shape; Server-Sent Events and long polling are two more, in transports/.
 *
 * @callback Transport
 * @param {URL} url  of the gateway's /events, with `after`
 * @param {Listener} listener
 * @returns {Connection}
 *
 * @typedef {object} Listener
 * @property {() => void} opened  what is sent from now on arrives
 * @property {(text: string) => void} received  one CloudEvent in JSON
 * @property {() => void} alive  something came, if only a comment
 * @property {import("./orderbell.js").Credential | null} credential  for transports that send it with a request
 * @property {() => Promise<import("./orderbell.js").Credential | null>} authenticate  gives another one
 * @property {(code: number, reason: string, wasClean: boolean) => void} closed  once, and nothing after it
 *
 * What is needed of a WebSocket; the browser's, Node's and that of the package `ws` have it.
 * @typedef {{ new (url: string, protocol: string): { send(text: string): void, close(code: number): void, addEventListener: any } }} SocketClass
 *
 * @typedef {object} Connection
 * @property {(text: string) => void} send
 * @property {() => void} leave  ends it from here; the listener hears no more, not even `closed`
 */

const SUBPROTOCOL = "cloudevents.json";

/**
 * @param {SocketClass} WebSocketClass
 * @returns {Transport}
 */
export function webSocketTransport(WebSocketClass) {
  return (url, listener) => {
    const address = new URL(url);
    address.protocol = url.protocol === "https:" ? "wss:" : "ws:";
    const socket = new WebSocketClass(address.href, SUBPROTOCOL);
    let ended = false;
    // Not by a signal: the package `ws` ignores it, and goes on calling listeners.
    const listen = (/** @type {string} */ type, /** @type {(event: any) => void} */ hear) =>
      socket.addEventListener(type, (/** @type {any} */ event) => ended || hear(event));
    // A "close" follows each error. In Node, one that nobody listens to would end the process.
    listen("error", () => {});
    listen("open", () => listener.opened());
    listen("message", ({ data }) => listener.received(String(data)));
    listen("close", ({ code, reason, wasClean }) => {
      ended = true;
      listener.closed(code, reason, wasClean);
    });
    return {
      send: (text) => socket.send(text),
      leave: () => {
        // After sleep or a change of network the closing handshake would wait for a peer that is gone:
        // stop listening first.
        ended = true;
        socket.close(1000);
      },
    };
  };
}
