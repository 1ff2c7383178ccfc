/**
 * The rows of open orders, and of those that were completed or cancelled.
 *
 * What comes changes what has changed and leaves the rest alone: what is typed, and where the focus is, stays.
 *
 * @typedef {import("./sender.js").Order} Order
 */

import { make } from "./elements.js";

const SHOWN = 15; // completed and cancelled orders
const STAY_MS = 1_200; // a completed row: the second click of a double click must not meet the next row's button
const MINUTE_MS = 60_000;
const LOST = "No answer; trying again.";
const STEPS = ["open", "completed", "retracted", "cancelled"]; // an order only moves on in these

export class OpenOrders {
  /** @type {Map<string, HTMLElement>} */
  #rows = new Map();
  /** Not open any more; a list that was read before may still come with them. @type {Set<string>} */
  #gone = new Set();
  #first = true;
  /** @type {number} */
  #aging;

  /**
   * @param {HTMLElement} list
   * @param {import("./sender.js").Sender} sender
   * @param {(order: Order) => void} changed  an order, here
   */
  constructor(list, sender, changed) {
    this.list = list;
    this.sender = sender;
    this.changed = changed;
    this.#aging = setInterval(() => this.#rows.forEach(showAge), MINUTE_MS / 2);
  }

  end() {
    clearInterval(this.#aging);
  }

  get count() {
    return [...this.#rows.keys()].filter((id) => !this.#gone.has(id)).length;
  }

  /**
   * @param {Order[]} orders  that have changed, oldest first
   * @param {string[] | null} gone  that are not listed any more; null: `orders` are all
   */
  update(orders, gone) {
    const open = new Set(orders.filter(({ status }) => status === "open").map((order) => order.order_id));
    const over = orders.filter(({ status }) => status !== "open").map((order) => order.order_id);
    const left = gone ? [...gone, ...over] : [...this.#rows.keys()].filter((id) => !open.has(id));
    for (const id of over) this.#gone.add(id);
    for (const id of left) {
      // A row at work stays: its own answer decides.
      if (!this.#rows.get(id)?.dataset.working) this.#remove(id);
    }
    for (const order of orders) {
      if (order.status === "open" && !this.#gone.has(order.order_id) && !this.#rows.has(order.order_id)) {
        this.#add(order);
      }
    }
    this.#first = false;
  }

  /** @param {Order} order */
  #add(order) {
    const row = make("li", this.#first ? "order" : "order new");
    const form = document.createElement("form");
    form.className = "order-form";
    const { order_id: id } = order;

    const message = document.createElement("input");
    message.name = "message";
    message.maxLength = 500;
    message.placeholder = `Order ${isolated(id)} is complete`;
    message.setAttribute("aria-label", `Message to the customer of order ${id}`);
    message.setAttribute("form", `complete-${id}`);
    const button = make("button", "", "Complete");
    button.setAttribute("aria-label", `Complete order ${id}`);
    button.setAttribute("form", `complete-${id}`);
    // Behind another step: an order that was cancelled can't be completed any more.
    const cancel = make("button", "quiet", "Cancel order");
    cancel.setAttribute("type", "button");
    cancel.setAttribute("aria-label", `Cancel order ${id}`);
    const summary = make("summary", "", "More");
    summary.setAttribute("aria-label", `More for order ${id}`);
    const more = make("details", "", summary, cancel);
    const failure = make("p", "failure");
    failure.setAttribute("role", "alert");
    form.id = `complete-${id}`;
    form.hidden = true; // the row's grid has the controls; the form is what they belong to

    const age = make("time", "");
    age.setAttribute("datetime", order.created_at);
    const about = make("span", "about", numberOf(order), `${order.customer_id} · `, age);
    row.append(make("div", "", make("strong", "", nameOf(order)), about), message, button, more, failure, form);
    row.dataset.orderId = id;
    showAge(row);

    // One key a row, not a click: trying again by hand must not count as another completion either.
    const key = randomKey();
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      if (row.dataset.working) return;
      const how = { message: message.value.trim(), key, lost: () => (failure.textContent = LOST) };
      this.#work(id, { row, button, failure, busy: "Completing …", done: "Completed", not: "Not completed." }, () =>
        this.sender.complete(id, how),
      );
    });
    cancel.addEventListener("click", () => {
      const words = { busy: "Cancelling …", done: "Cancelled", not: "Not cancelled." };
      if (!row.dataset.working) {
        this.#work(id, { row, button: cancel, failure, ...words }, () => this.sender.cancel(id));
      }
    });
    this.#rows.set(id, row);
    this.list.append(row);
  }

  /**
   * @param {string} id
   * @param {{ row: HTMLElement, button: HTMLElement, failure: HTMLElement, busy: string, done: string, not: string }} work
   * @param {() => Promise<Order>} change
   */
  async #work(id, { row, button, failure, busy, done, not }, change) {
    const before = button.textContent;
    row.dataset.working = "true";
    button.setAttribute("aria-disabled", "true"); // not `disabled`: that would drop the focus
    button.textContent = busy;
    failure.textContent = "";
    try {
      const order = await change();
      failure.textContent = "";
      button.textContent = done;
      row.dataset.done = "true";
      this.#gone.add(id);
      this.changed(order);
      setTimeout(() => this.#remove(id), STAY_MS);
    } catch (error) {
      failure.textContent = `${not} ${error instanceof Error ? error.message : error}`;
      delete row.dataset.working;
      button.removeAttribute("aria-disabled");
      button.textContent = before;
    }
  }

  /** @param {string} id */
  #remove(id) {
    const row = this.#rows.get(id);
    if (!row) return;
    this.#rows.delete(id);
    const next = row.nextElementSibling ?? row.previousElementSibling;
    const hadFocus = row.contains(document.activeElement);
    row.remove();
    // A person who works through the list by keyboard goes on with the next one.
    if (hadFocus) next?.querySelector("button")?.focus();
  }
}

/** Those that were completed or cancelled, the newest first, wherever that was done. */
export class RecentOrders {
  /** @type {Map<string, { order: Order, row: HTMLElement }>} */
  #shown = new Map();

  /** @param {HTMLElement} list @param {(orderId: string) => Promise<Order>} cancel */
  constructor(list, cancel) {
    this.list = list;
    this.cancel = cancel;
  }

  /** @param {Order[]} orders  in any order; what came before stays */
  update(orders) {
    for (const order of orders) {
      const known = this.#shown.get(order.order_id);
      // An answer may be older than what has come since.
      if (stepOf(order) <= (known ? stepOf(known.order) : 0)) continue;
      this.#shown.set(order.order_id, { order, row: this.#row(order) });
    }
    const latest = [...this.#shown.values()]
      .sort((one, other) => changedAt(other.order).localeCompare(changedAt(one.order)))
      .slice(0, SHOWN);
    this.#shown = new Map(latest.map((one) => [one.order.order_id, one]));
    const rows = latest.map(({ row }) => row);
    const focused = rows.find((row) => row.contains(document.activeElement));
    if (rows.length === this.list.children.length && rows.every((row, n) => row === this.list.children[n])) return;
    const focus = focused && document.activeElement;
    this.list.replaceChildren(...rows);
    if (focus instanceof HTMLElement) focus.focus();
  }

  /** @param {Order} order */
  #row(order) {
    const row = recentRow(order);
    const over = { cancelled: "Cancelled", retracted: "Alert taken back" }[STEPS[stepOf(order)]];
    if (over) {
      row.append(make("span", "about", over));
      row.dataset.cancelled = "true";
      return row;
    }
    const button = make("button", "quiet", "Take back");
    button.setAttribute("type", "button");
    button.setAttribute("aria-label", `Take back order ${order.order_id}: cancel it, and its alert`);
    const failure = make("span", "failure");
    failure.setAttribute("role", "alert");
    button.addEventListener("click", async () => {
      button.setAttribute("aria-disabled", "true"); // not `disabled`: that would drop the focus
      failure.textContent = "";
      try {
        this.update([await this.cancel(order.order_id)]); // again is the same, so a second click does no harm
      } catch (error) {
        failure.textContent = `Not cancelled. ${error instanceof Error ? error.message : error}`;
        button.removeAttribute("aria-disabled");
      }
    });
    row.append(button, failure);
    return row;
  }

  get count() {
    return this.#shown.size;
  }
}

/** @param {Order} order */
function stepOf({ status, alert }) {
  return STEPS.indexOf(status === "completed" ? alert ?? status : status);
}

/** @param {Order} order */
function changedAt({ completed_at, cancelled_at }) {
  return [completed_at ?? "", cancelled_at ?? ""].sort()[1];
}

/** @param {Order} order */
function recentRow(order) {
  const moment = changedAt(order);
  const text = new Date(moment).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit" });
  const time = make("time", "", text);
  time.setAttribute("datetime", moment);
  const row = make(
    "li",
    "",
    make("span", "", nameOf(order)),
    make("span", "about", numberOf(order), `${order.customer_id} · `, time),
  );
  row.dataset.orderId = order.order_id;
  return row;
}

/**
 * An id may change the direction of the text around it, unless it is isolated.
 *
 * @param {string} id
 */
function isolated(id) {
  return /^[ -~]*$/.test(id) ? id : `\u2068${id.replace(/[\u202a-\u202e\u2066-\u2069]/g, "")}\u2069`;
}

/** @param {Order} order */
function nameOf({ data, order_id }) {
  return typeof data?.item === "string" ? data.item : `Order ${order_id}`;
}

/** Where the name is not the number already. @param {Order} order */
function numberOf({ data, order_id }) {
  return typeof data?.item === "string" ? `${order_id} · ` : "";
}

/** @param {HTMLElement} row */
function showAge(row) {
  const time = row.querySelector("time");
  if (!time) return;
  const minutes = Math.max(0, Math.floor((Date.now() - Date.parse(time.dateTime)) / MINUTE_MS));
  const text =
    minutes < 1 ? "just now" : minutes < 60 ? `${minutes} min ago` : new Date(time.dateTime).toLocaleString();
  if (time.textContent !== text) time.textContent = text;
}

/** crypto.randomUUID() exists on secure pages only. */
function randomKey() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
