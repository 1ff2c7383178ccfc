/**
 * A world for an AlertSource that a test moves by hand: its sockets, clock, network and visibility. The storage
 * and the BroadcastChannel are the browser's own.
 */

import { AlertSource } from "/client/v1/orderbell.js";

const GATEWAY = "/orderbell/receiver";
let said = 0;
let worlds = 0;
let lastKey = "";

class Socket extends EventTarget {
  /** Where each new one is noted. @type {(socket: Socket) => void} */
  static made = () => {};

  /** @type {any[]} */
  sent = [];
  left = false; // by the client

  /** @param {string | URL} url @param {string} [protocol] */
  constructor(url, protocol) {
    super();
    this.url = new URL(url);
    this.protocol = protocol;
    Socket.made(this);
  }

  /** @param {string} text */
  send(text) {
    this.sent.push(JSON.parse(text));
  }

  close() {
    this.left = true;
  }

  accept() {
    this.dispatchEvent(new Event("open"));
    return this;
  }

  /** @param {string} type @param {any} data */
  say(type, data, attributes = {}) {
    const event = { specversion: "1.0", id: `e${++said}`, source: GATEWAY, type, ...attributes, data };
    this.dispatchEvent(new MessageEvent("message", { data: JSON.stringify(event) }));
    return this;
  }

  /** `more`: what gateways of all versions don't say. */
  hello(cursor = "customer:alice=1.0", more = {}) {
    const channels = cursor.split(",").map((part) => part.split("=")[0]);
    return this.accept().say("orderbell.hello", { cursor, channels, heartbeat_seconds: 20, gateway: "g", ...more });
  }

  /** @param {number} seq @param {any} [options] */
  event(seq, { channel = "customer:alice", epoch = 1, ...more } = {}) {
    const event = { type: "order.completed", data: { message: `Order ${seq}` }, ...more };
    return this.say(event.type, event.data, { channel, epoch, seq, ...event });
  }

  /** @param {number} seq */
  tombstone(seq, { channel = "customer:alice", epoch = 1 } = {}) {
    return this.say("orderbell.tombstone", { reason: "too-large" }, { channel, epoch, seq });
  }

  /** @param {number} code */
  end(code, reason = "") {
    this.dispatchEvent(new CloseEvent("close", { code, reason, wasClean: code !== 1006 }));
  }

  /** The cursor that the client asked to go on from. */
  get after() {
    return this.url.searchParams.get("after");
  }
}

/** Enough of a document for a client that only asks how it is looked at. */
class Looks extends EventTarget {
  baseURI = document.baseURI;
  /** @type {DocumentVisibilityState} */
  visibilityState = "visible";
  focused = true;
  prerendering = false;

  hasFocus() {
    return this.focused;
  }

  /** @param {DocumentVisibilityState} visibilityState */
  become(visibilityState) {
    this.visibilityState = visibilityState;
    this.dispatchEvent(new Event("visibilitychange"));
  }
}

export class World {
  /** @type {Socket[]} */
  sockets = [];
  /** What the source has fired: [type, what was in it]. @type {[string, unknown][]} */
  fired = [];
  time = 1_000_000;
  random = 0.5;
  window = new EventTarget();
  document = new Looks();
  #timers = new Map();
  #taken = 0;

  /**
   * Without a key it shares nothing with any other world. `show` is the listener of "alert", after the one that notes
   * it; null: there is none at all.
   *
   * @param {{ key?: string, getToken?: any, show?: ((event: any) => void) | null, environment?: any, [option: string]: any }} [options]
   */
  constructor({ key = `world ${++worlds}`, getToken, show = () => {}, environment, ...options } = {}) {
    const world = this;
    lastKey = key;
    Socket.made = (socket) => this.sockets.push(socket);
    this.source = new AlertSource("https://gateway.example/", {
      key,
      getToken,
      transports: ["websocket"],
      ...options,
      environment: {
        WebSocket: class extends Socket {
          /** @param {string | URL} url @param {string} [protocol] */
          constructor(url, protocol) {
            Socket.made = (socket) => world.sockets.push(socket);
            super(url, protocol);
          }
        },
        setTimeout: (action, ms) => {
          const id = this.#timers.size + 1;
          this.#timers.set(id, { at: this.time + ms, action });
          return id;
        },
        clearTimeout: (id) => this.#timers.delete(id) && this.#timers.set(id, null),
        now: () => this.time,
        random: () => this.random,
        window: this.window,
        document: this.document,
        ...environment,
      },
    });
    for (const type of ["open", "message", "alert", "shown", "reset", "reconnecting", "error", "close"]) {
      /** @param {any} event */
      const note = (event) => {
        this.fired.push([type, contentOf(event)]);
        if (type === "alert") show?.(event);
      };
      if (type !== "alert" || show) this.source.addEventListener(type, note);
    }
  }

  /** The client's next connection. */
  async socket() {
    const socket = await until(() => this.sockets[this.#taken]);
    this.#taken += 1;
    return socket;
  }

  /** The client's next connection, after whatever wait. */
  async next() {
    for (let n = 0; n < 400 && !this.sockets[this.#taken]; n += 1) {
      this.pass(250);
      await new Promise((resolve) => setTimeout(resolve));
    }
    return this.socket();
  }

  /** Moves the clock, and calls what falls due on the way, in order. @param {number} ms */
  pass(ms) {
    const end = this.time + ms;
    for (;;) {
      const [id, next] = [...this.#timers].filter(([, timer]) => timer && timer.at <= end).sort(([, a], [, b]) => a.at - b.at)[0] ?? [];
      if (!next) break;
      this.#timers.set(id, null);
      this.time = Math.max(this.time, next.at);
      next.action();
    }
    this.time = end;
  }

  /** Somebody sets the clock, by so much; timers don't go by it. @param {number} ms */
  setClock(ms) {
    this.time += ms;
    for (const timer of this.#timers.values()) if (timer) timer.at += ms;
  }

  /** What was fired of this type. */
  of(/** @type {string} */ type) {
    return this.fired.filter(([fired]) => fired === type).map(([, content]) => content);
  }

  /** What was fired of this type, once there are so many. */
  async wait(/** @type {string} */ type, /** @type {number} */ count) {
    await until(() => this.of(type).length >= count);
    return this.of(type);
  }

  /** Until the storage has done what it was asked so far. */
  async settle() {
    for (let n = 0; n < 3; n += 1) {
      await /** @type {Promise<void>} */ (new Promise((resolve, reject) => {
        const opening = indexedDB.open("orderbell");
        opening.onerror = reject;
        opening.onsuccess = () => {
          const database = opening.result;
          const transaction = database.transaction("shown", "readwrite");
          transaction.oncomplete = () => (database.close(), resolve());
        };
      }));
      await new Promise((resolve) => setTimeout(resolve));
    }
  }
}

function contentOf(/** @type {any} */ event) {
  if (event.type === "message") return event.lastEventId;
  if (event.type === "alert") return `${event.detail.channel}=${event.detail.epoch}.${event.detail.seq}`;
  if (event.type === "shown") return `${event.detail.cursor} ${event.detail.by}`;
  if (event.type === "close") return event.code;
  if (event.type === "error") return event.detail.kind;
  return event.detail ?? null;
}

/** @template T @param {() => T} condition @returns {Promise<NonNullable<T>>} */
export async function until(condition, ms = 5_000) {
  for (const end = Date.now() + ms; ; await new Promise((resolve) => setTimeout(resolve, 2))) {
    const value = condition();
    if (value) return value;
    if (Date.now() > end) throw new Error(`not within ${ms} ms: ${condition}`);
  }
}

/** What the browser keeps beyond that. */
export async function storedBeyond(key = lastKey) {
  const { beyond = {}, claims = {} } = (await record([key])) ?? {};
  return [Object.fromEntries(Object.entries(beyond).map(([channel, { ranges }]) => [channel, ranges])), Object.keys(claims)];
}

/** Up to where all was shown, as the browser keeps it for this key, else for that of the last world. */
export async function stored(key = lastKey) {
  return (await record([key]))?.upTo ?? (await record(key));
}

/** @returns {Promise<any>} */
export async function record(/** @type {IDBValidKey} */ key = lastKey) {
  return new Promise((resolve, reject) => {
    const opening = indexedDB.open("orderbell");
    opening.onerror = reject;
    opening.onsuccess = () => {
      const reading = opening.result.transaction("shown").objectStore("shown").get(key);
      reading.onsuccess = () => (opening.result.close(), resolve(reading.result ?? null));
    };
  });
}

Object.assign(globalThis, { World, until, record, stored, storedBeyond });
