/**
 * The transports, side by side, in development mode: each one as plainly as a page could write it, so that its cost can
 * be seen. The client that pages should use is orderbell.js.
 */

import { element } from "../elements.js";

const EVENTS = new URL("../events", document.baseURI);
const PAUSE_MS = 1_000; // between two polls
const RETRY_MS = 2_000; // after a failure

/** The order that is being completed. @type {{id: string, at: number} | null} */
let awaited = null;

const sleep = (/** @type {number} */ ms) => new Promise((resolve) => setTimeout(resolve, ms));
const size = (/** @type {string} */ text) => new TextEncoder().encode(text).length;
const framed = (/** @type {string} */ text) => size(text) + (size(text) < 126 ? 2 : 4);

/** A pane: the requests, bytes and delay of one transport. */
class Pane {
  /** @param {string} name @param {(pane: Pane) => Promise<void>} listen until it fails or ends */
  constructor(name, listen) {
    this.listen = listen;
    this.requests = 0;
    this.bytes = 0;
    this.since = { requests: 0, bytes: 0 };
    this.element = document.createElement("section");
    this.element.className = "pane";
    this.element.dataset.way = name;
    const title = document.createElement("h2");
    title.textContent = name;
    this.delay = document.createElement("p");
    this.delay.className = "delay";
    this.delay.textContent = "–";
    const list = document.createElement("dl");
    this.cells = Object.fromEntries(["requests", "bytes", "for this order"].map((label) => {
      const [term, value] = [document.createElement("dt"), document.createElement("dd")];
      term.textContent = label;
      value.textContent = "0";
      list.append(term, value);
      return [label, value];
    }));
    this.element.append(title, this.delay, list);
  }

  async run() {
    for (;;) {
      try {
        await this.listen(this);
      } catch (error) {
        console.warn(this.element.dataset.way, error);
      }
      await sleep(RETRY_MS);
    }
  }

  asked() {
    this.requests += 1;
    this.show();
  }

  /** @param {number} bytes @param {string} text what may hold events */
  received(bytes, text) {
    this.bytes += bytes;
    if (awaited && text.includes(`"order_id":"${awaited.id}"`) && this.waiting) {
      this.waiting = false;
      this.delay.textContent = `${Math.round(performance.now() - awaited.at).toLocaleString()} ms`;
      if (!document.querySelector(".pane.first")) this.element.classList.add("first");
      this.cells["for this order"].textContent =
        `${this.requests - this.since.requests} · ${(this.bytes - this.since.bytes).toLocaleString()} B`;
      ready();
    }
    this.show();
  }

  await() {
    this.waiting = true;
    this.since = { requests: this.requests, bytes: this.bytes };
    this.delay.textContent = "…";
    this.cells["for this order"].textContent = "…";
    this.element.classList.remove("first");
  }

  show() {
    this.cells.requests.textContent = this.requests.toLocaleString();
    this.cells.bytes.textContent = this.bytes.toLocaleString();
  }
}

/** @param {number} wait seconds; 0 answers at once @returns {(pane: Pane) => Promise<void>} */
function polling(wait) {
  const session = wait ? `&session=${Math.random().toString(36).slice(2)}` : "";
  let after = "";
  return async (pane) => {
    let etag = "";
    for (;;) {
      const url = new URL(`?wait=${wait}${session}${after && `&after=${encodeURIComponent(after)}`}`, EVENTS);
      pane.asked();
      const answer = await fetch(url, { cache: "no-store", headers: etag ? { "if-none-match": etag } : {} });
      if (answer.status === 200) {
        const text = await answer.text();
        after = JSON.parse(text).cursor;
        etag = answer.headers.get("etag") ?? "";
        pane.received(size(text), text);
      } else if (answer.status !== 304) {
        after = "";
        throw new Error(`${answer.status}`);
      }
      if (!wait) await sleep(PAUSE_MS);
    }
  };
}

/** @param {Pane} pane */
async function eventStream(pane) {
  pane.asked();
  const answer = await fetch(EVENTS, { headers: { accept: "text/event-stream" }, cache: "no-store" });
  if (!answer.ok || !answer.body) throw new Error(`${answer.status}`);
  const reader = answer.body.getReader();
  const decoder = new TextDecoder();
  let line = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const lines = (line + decoder.decode(value, { stream: true })).split("\n");
    line = lines.pop() ?? "";
    pane.received(value.length, lines.join("\n"));
  }
}

/**
 * @param {string} path @param {string} protocol @param {(socket: WebSocket, text: string) => void} [came]
 * @returns {(pane: Pane) => Promise<void>}
 */
function socket(path, protocol, came) {
  return (pane) => new Promise((_, reject) => {
    pane.asked();
    const url = new URL(path, document.baseURI);
    url.protocol = url.protocol.replace("http", "ws");
    const open = new WebSocket(url, protocol);
    open.addEventListener("message", ({ data }) => {
      pane.received(framed(data), data);
      came?.(open, data);
    });
    open.addEventListener("close", ({ code }) => reject(new Error(`closed with ${code}`)));
    open.addEventListener("open", () => came?.(open, ""));
  });
}

/** @param {WebSocket} open @param {string} text */
function stomp(open, text) {
  if (text === "") open.send("CONNECT\naccept-version:1.2\nheart-beat:0,0\n\n\0");
  if (text.startsWith("CONNECTED")) open.send("SUBSCRIBE\nid:0\ndestination:/user/queue/orders\nack:client\n\n\0");
}

const panes = [
  new Pane("Polling, each second", polling(0)),
  new Pane("Long polling", polling(25)),
  new Pane("Server-Sent Events", eventStream),
  new Pane("WebSocket", socket("../events", "cloudevents.json")),
  new Pane("STOMP over WebSocket", socket("../stomp", "v12.stomp", stomp)),
];

const button = /** @type {HTMLButtonElement} */ (element("order"));
const status = element("status");

function ready() {
  const left = panes.filter((pane) => pane.waiting).length;
  button.disabled = left > 0;
  status.textContent = left ? `${left} still waiting` : "All have it.";
}

button.addEventListener("click", async () => {
  button.disabled = true;
  awaited = { id: `compare-${Date.now().toString(36)}`, at: performance.now() };
  for (const pane of panes) pane.await();
  ready();
  const answer = await post("orders/complete", { order_id: awaited.id });
  if (!answer.ok) {
    status.textContent = `The order could not be completed: ${answer.status}`;
    button.disabled = false;
  }
});

/** @param {string} path @param {object} body */
async function post(path, body) {
  const url = new URL(path, document.baseURI);
  return fetch(url, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) });
}

async function begin() {
  let { customer } = await (await fetch(new URL("session", document.baseURI))).json();
  if (!customer) ({ customer } = await (await post("sign-in", { customer: "alice" })).json());
  element("customer").textContent = customer;
  element("panes").append(...panes.map((pane) => pane.element));
  for (const pane of panes) void pane.run();
  button.disabled = false;
}

await begin();
