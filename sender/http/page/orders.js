/**
 * The rows of open and of completed orders.
 *
 * A refresh changes what has changed and leaves the rest alone: what is typed, and where the focus is, stays.
 *
 * @typedef {import("./sender.js").Order} Order
 */

const SHOWN = 10; // completed orders
const STAY_MS = 1_200; // a completed row: the second click of a double click must not meet the next row's button
const MINUTE_MS = 60_000;

export class OpenOrders {
  /** @type {Map<string, HTMLElement>} */
  #rows = new Map();
  /** Completed here; a list that was read before may still come with them. @type {Set<string>} */
  #gone = new Set();
  #first = true;

  /**
   * @param {HTMLElement} list
   * @param {(orderId: string, how: { message: string, key: string, lost: () => void }) => Promise<Order>} complete
   * @param {(order: Order) => void} completed
   */
  constructor(list, complete, completed) {
    this.list = list;
    this.complete = complete;
    this.completed = completed;
  }

  get count() {
    return [...this.#rows.keys()].filter((id) => !this.#gone.has(id)).length;
  }

  /** @param {Order[]} orders  oldest first */
  update(orders) {
    const open = orders.filter((order) => !this.#gone.has(order.order_id));
    const ids = new Set(open.map((order) => order.order_id));
    for (const id of this.#rows.keys()) {
      // A row at work stays: its own answer decides.
      if (!ids.has(id) && !this.#rows.get(id)?.dataset.working) this.#remove(id);
    }
    for (const order of open) {
      const row = this.#rows.get(order.order_id);
      if (row) showAge(row);
      else this.#add(order);
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
    message.placeholder = `Order ${id} is complete`;
    message.setAttribute("aria-label", `Message to the customer of order ${id}`);
    message.setAttribute("form", `complete-${id}`);
    const button = make("button", "", "Complete");
    button.setAttribute("aria-label", `Complete order ${id}`);
    button.setAttribute("form", `complete-${id}`);
    const failure = make("p", "failure");
    failure.setAttribute("role", "alert");
    form.id = `complete-${id}`;
    form.hidden = true; // the row's grid has the controls; the form is what they belong to

    const age = make("time", "");
    age.setAttribute("datetime", order.created_at);
    const about = make("span", "about", numberOf(order), `${order.customer_id} · `, age);
    row.append(make("div", "", make("strong", "", nameOf(order)), about), message, button, failure, form);
    row.dataset.orderId = id;
    showAge(row);

    // One key a row, not a click: trying again by hand must not count as another completion either.
    const key = randomKey();
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      if (!row.dataset.working) this.#work(id, { row, button, failure, message: message.value.trim(), key });
    });
    this.#rows.set(id, row);
    this.list.append(row);
  }

  /**
   * @param {string} id
   * @param {{ row: HTMLElement, button: HTMLElement, failure: HTMLElement, message: string, key: string }} work
   */
  async #work(id, { row, button, failure, message, key }) {
    row.dataset.working = "true";
    button.setAttribute("aria-disabled", "true"); // not `disabled`: that would drop the focus
    button.textContent = "Completing …";
    failure.textContent = "";
    const lost = () => (failure.textContent = "No answer; trying again.");
    try {
      const order = await this.complete(id, { message, key, lost });
      failure.textContent = "";
      button.textContent = "Completed";
      row.dataset.done = "true";
      this.#gone.add(id);
      this.completed(order);
      setTimeout(() => this.#remove(id), STAY_MS);
    } catch (error) {
      failure.textContent = `Not completed. ${error instanceof Error ? error.message : error}`;
      delete row.dataset.working;
      button.removeAttribute("aria-disabled");
      button.textContent = "Complete";
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
    // Whoever works through the list by keyboard goes on with the next one.
    if (hadFocus) next?.querySelector("button")?.focus();
  }
}

export class CompletedOrders {
  /** @type {Map<string, Order>} */
  #orders = new Map();

  /** @type {Set<string>} those taken back here: rows are made anew when orders come */
  #cancelled = new Set();

  /** @param {HTMLElement} list @param {(orderId: string) => Promise<unknown>} cancel */
  constructor(list, cancel) {
    this.list = list;
    this.cancel = cancel;
  }

  /** @param {Order[]} orders */
  add(orders) {
    const news = orders.filter((order) => !this.#orders.has(order.order_id));
    if (news.length === 0) return;
    for (const order of news) this.#orders.set(order.order_id, order);
    const latest = [...this.#orders.values()]
      .sort((one, other) => (other.completed_at ?? "").localeCompare(one.completed_at ?? ""))
      .slice(0, SHOWN);
    this.#orders = new Map(latest.map((order) => [order.order_id, order]));
    this.list.replaceChildren(...latest.map((order) => this.#row(order)));
  }

  /** @param {Order} order */
  #row(order) {
    const row = completedRow(order);
    if (this.#cancelled.has(order.order_id)) {
      row.append(make("span", "about", "Cancelled"));
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
        await this.cancel(order.order_id); // again is the same, so a second click does no harm
        this.#cancelled.add(order.order_id);
        // The row may have been made anew meanwhile.
        const rows = /** @type {HTMLElement[]} */ ([...this.list.children]);
        rows.find((one) => one.dataset.orderId === order.order_id)?.replaceWith(this.#row(order));
      } catch (error) {
        failure.textContent = `Not cancelled. ${error instanceof Error ? error.message : error}`;
        button.removeAttribute("aria-disabled");
      }
    });
    row.append(button, failure);
    return row;
  }

  get count() {
    return this.#orders.size;
  }
}

/** @param {Order} order */
function completedRow(order) {
  const moment = new Date(order.completed_at ?? "");
  const time = make("time", "", moment.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit" }));
  time.setAttribute("datetime", order.completed_at ?? "");
  const row = make(
    "li",
    "",
    make("span", "", nameOf(order)),
    make("span", "about", numberOf(order), `${order.customer_id} · `, time),
  );
  row.dataset.orderId = order.order_id;
  return row;
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

/** @param {string} tag @param {string} name @param {...(string | Node)} children  text stays text */
function make(tag, name, ...children) {
  const made = document.createElement(tag);
  made.className = name;
  made.append(...children);
  return made;
}
