/**
 * The list of alerts that stays, where the pop-ups go away. It is kept for the next visit, and every tab has it whole.
 *
 * @typedef {object} Alert
 * @property {string} cursor
 * @property {string} text
 * @property {string} subject
 * @property {unknown} item
 * @property {string} time
 * @property {"" | "here" | "tab" | "device" | "before"} by  who has shown it; before: whoever, on an earlier visit
 */

import { element, make, picture, time } from "./elements.js";
import { pictureOf } from "./menu.js";

const MOST = 50;
const SHOWN = {
  "": "",
  here: "Popped up in this tab",
  tab: "Popped up in another tab",
  device: "Popped up on another device",
  before: "Popped up before",
};

/** What an event says to a person. @param {import("../orderbell.js").CloudEvent} event */
export function textOf({ type, data }) {
  return typeof data?.message === "string" ? data.message : type;
}

export class Alerts {
  /** Oldest first, as they came. @type {Map<string, Alert>} */
  #alerts = new Map();
  #kept;

  /** @param {string} customer */
  constructor(customer) {
    this.#kept = `orderbell-shop/alerts/${customer}`;
    this.#load("before");
    this.#show();
  }

  /** @param {string} cursor @param {import("../orderbell.js").CloudEvent} event */
  add(cursor, event) {
    this.#load("tab"); // what other tabs have kept since
    const subject = event.subject ?? "";
    const alert = { cursor, text: textOf(event), subject, item: event.data?.item, time: event.time ?? "", by: "" };
    if (!this.#alerts.has(cursor)) this.#alerts.set(cursor, /** @type {Alert} */ (alert));
    this.#keep();
    this.#show(cursor);
  }

  /** @param {string} cursor @param {"here" | "tab" | "device"} by */
  shown(cursor, by) {
    const alert = this.#alerts.get(cursor);
    if (!alert || alert.by === by) return;
    alert.by = by;
    this.#keep();
    this.#show();
  }

  clear() {
    this.#alerts.clear();
    this.#show();
  }

  /** @param {"tab" | "before"} here  what "here" means when it was another page that kept it */
  #load(here) {
    try {
      /** @type {Alert[]} */
      const kept = JSON.parse(localStorage.getItem(this.#kept) ?? "[]");
      for (const alert of kept) {
        const by = alert.by === "here" ? here : alert.by;
        if (!this.#alerts.has(alert.cursor)) this.#alerts.set(alert.cursor, { ...alert, by });
      }
    } catch {
      // Site data is blocked, or not ours: the list then lasts as long as the page.
    }
  }

  #keep() {
    try {
      localStorage.setItem(this.#kept, JSON.stringify([...this.#alerts.values()].slice(-MOST)));
    } catch {
      // as above; or it is full
    }
  }

  /** @param {string} [added]  the cursor of a new one */
  #show(added) {
    const alerts = [...this.#alerts.values()].sort((one, other) => other.time.localeCompare(one.time)).slice(0, MOST);
    element("alerts").replaceChildren(...alerts.map((alert) => row(alert, alert.cursor === added)));
    element("alerts-empty").hidden = alerts.length > 0;
  }
}

/** @param {Alert} alert @param {boolean} added */
function row({ cursor, text, subject, item, time: moment, by }, added) {
  const about = make("span", "about", typeof item === "string" ? item : `Order ${subject}`, " · ", time(moment));
  const whose = make("span", "about", SHOWN[by]);
  const words = make("div", "", make("strong", "", text), about, whose);
  const shown = make("li", added ? "new" : "", picture(pictureOf(item), 40), words);
  shown.dataset.cursor = cursor;
  return shown;
}
