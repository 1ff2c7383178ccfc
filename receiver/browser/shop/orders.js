/**
 * The customer's orders and their state: fetched once, then kept true by events. An order that is cancelled before it
 * is complete sends none, because nobody was alerted of it; so what is open is asked for from time to time.
 *
 * @typedef {object} Order
 * @property {string} order_id
 * @property {"open" | "completed" | "cancelled"} status
 * @property {string} created_at
 * @property {string | null} [completed_at]
 * @property {Record<string, unknown>} [data]
 */

import { element, make, picture, time } from "../elements.js";
import { pictureOf } from "./menu.js";
import { DEVELOPMENT, json } from "./session.js";

// An order only moves on in these: it never opens again, and one that was cancelled stays so.
const STATES = { open: "In the kitchen", completed: "Complete", cancelled: "Cancelled" };
const ORDER = Object.keys(STATES);
const ASK_MS = 5_000;

export class Orders {
  /** By id. @type {Map<string, Order>} */
  #orders = new Map();
  /** By id; the newest first, as they are listed. @type {Map<string, HTMLElement>} */
  #rows = new Map();
  #list = element("orders");
  /** @type {number | undefined} */
  #asking;
  #ended = false;

  /** All of them, anew: at the beginning, and where events were missed. */
  async load() {
    if (!DEVELOPMENT) return; // only there does the gateway ask the sender on a customer's behalf
    /** @type {{ orders: Order[] }} */
    const { orders } = await json(await fetch("development/orders"));
    if (this.#ended) return; // signed out meanwhile
    for (const order of orders.reverse()) this.add(order);
    this.#asking ??= window.setInterval(() => this.#ask(), ASK_MS);
  }

  /** Where nobody looks at it, or nothing is open, the page has no question. */
  #ask() {
    if (document.hidden || ![...this.#orders.values()].some(({ status }) => status === "open")) return;
    this.load().catch(() => {}); // the connection's state is at the top; the next question comes
  }

  /** @param {Order} order */
  add(order) {
    // An event may have been quicker than an answer.
    const known = this.#orders.get(order.order_id);
    if (!known || ORDER.indexOf(known.status) < ORDER.indexOf(order.status)) this.#put(order);
  }

  /** @param {import("../orderbell.js").CloudEvent} event */
  complete({ data, time: moment }) {
    const { order_id } = Object(data);
    if (typeof order_id !== "string") return; // somebody else's event of our type
    const completed_at = moment ?? new Date().toISOString();
    const known = this.#orders.get(order_id);
    if (known?.status === "cancelled") return; // the event is from before
    const created_at = known?.created_at ?? completed_at; // placed in another tab
    this.#put({ order_id, data, created_at, status: "completed", completed_at });
  }

  /** For good: somebody has signed out. */
  clear() {
    this.#ended = true;
    clearInterval(this.#asking);
    this.#orders.clear();
    this.#rows.clear();
    this.#list.replaceChildren();
    element("orders-empty").hidden = false;
  }

  /** Changes one row, however many there are. @param {Order} order */
  #put(order) {
    const old = this.#rows.get(order.order_id);
    const made = row(order);
    this.#orders.set(order.order_id, order);
    this.#rows.set(order.order_id, made);
    if (old) old.replaceWith(made);
    else this.#list.insertBefore(made, this.#before(order.created_at));
    element("orders-empty").hidden = true;
  }

  /** The row of the next older order. @param {string} moment */
  #before(moment) {
    const created = (/** @type {Element} */ other) =>
      this.#orders.get(/** @type {HTMLElement} */ (other).dataset.orderId ?? "")?.created_at ?? "";
    return [...this.#list.children].find((other) => created(other) <= moment) ?? null;
  }
}

/** @param {Order} order */
function row({ order_id, status, created_at, data }) {
  const number = `Order ${order_id}`;
  const item = typeof data?.item === "string" ? data.item : number;
  const state = make("span", "state", STATES[status]);
  state.dataset.status = status;
  const about = make("span", "about", item === number ? "" : `${number} · `, time(created_at));
  const shown = make("li", "", picture(pictureOf(item), 40), make("div", "", make("strong", "", item), about), state);
  shown.dataset.orderId = order_id;
  return shown;
}
