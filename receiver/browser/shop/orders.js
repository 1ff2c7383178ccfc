/**
 * The customer's orders and their state: fetched once, then kept true by events.
 *
 * @typedef {object} Order
 * @property {string} order_id
 * @property {"open" | "completed"} status
 * @property {string} created_at
 * @property {string | null} [completed_at]
 * @property {Record<string, unknown>} [data]
 */

import { element, make, picture, time } from "./elements.js";
import { pictureOf } from "./menu.js";
import { DEVELOPMENT, json } from "./session.js";

export class Orders {
  /** By id; shown newest first. @type {Map<string, Order>} */
  #orders = new Map();

  /** All of them, anew: at the beginning, and where events were missed. */
  async load() {
    if (!DEVELOPMENT) return; // only there does the gateway ask the sender on a customer's behalf
    const { orders } = await json(await fetch("/development/orders"));
    for (const order of orders) {
      // An event may have been quicker than this answer, and an order never opens again.
      if (this.#orders.get(order.order_id)?.status !== "completed") this.#orders.set(order.order_id, order);
    }
    this.#show();
  }

  /** @param {Order} order */
  add(order) {
    if (this.#orders.get(order.order_id)?.status !== "completed") this.#orders.set(order.order_id, order);
    this.#show();
  }

  /** @param {import("../orderbell.js").CloudEvent} event */
  complete({ data, time: at }) {
    const order = this.#orders.get(data.order_id);
    const completed_at = at ?? new Date().toISOString();
    this.#orders.set(data.order_id, {
      order_id: data.order_id,
      data,
      created_at: order?.created_at ?? completed_at, // placed in another tab
      status: "completed",
      completed_at,
    });
    this.#show();
  }

  clear() {
    this.#orders.clear();
    this.#show();
  }

  #show() {
    const orders = [...this.#orders.values()].sort((one, other) => other.created_at.localeCompare(one.created_at));
    element("orders").replaceChildren(...orders.map(row));
    element("orders-empty").hidden = orders.length > 0;
  }
}

/** @param {Order} order */
function row({ order_id, status, created_at, data }) {
  const item = typeof data?.item === "string" ? data.item : `Order ${order_id}`;
  const state = make("span", "state", status === "completed" ? "Complete" : "In the kitchen");
  state.dataset.status = status;
  const about = make("span", "about", `Order ${order_id} · `, time(created_at));
  const shown = make("li", "", picture(pictureOf(item), 40), make("div", "", make("strong", "", item), about), state);
  shown.dataset.orderId = order_id;
  return shown;
}
